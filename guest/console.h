/* The serial console, the only thing that the outside sees of this program. See README.md. */
#pragma once

void open_console(void);

/* One line, one write(2), never mixed with another line. The newline is added here. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

/* `VF ERROR ...`, but only the first 20 of them: the counters tell the rest. */
__attribute__((format(printf, 1, 2))) void say_error(const char *format, ...);

/* For what makes going on pointless, such as a parameter that cannot be understood. */
__attribute__((format(printf, 1, 2), noreturn)) void give_up(const char *format, ...);
