#include "console.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 512, ERRORS_SAID_MAX = 20 };

static int console = STDOUT_FILENO;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

void open_console(void) {
  int tty = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
  if (tty < 0) give_up("cannot open /dev/ttyS0");
  struct termios raw;
  if (tcgetattr(tty, &raw) != 0) give_up("/dev/ttyS0 is not a terminal");
  cfmakeraw(&raw);
  raw.c_cflag |= CLOCAL;
  if (tcsetattr(tty, TCSANOW, &raw) != 0) give_up("cannot make /dev/ttyS0 raw");
  console = tty;
}

__attribute__((format(printf, 2, 0))) static void say_line(const char *prefix, const char *format,
                                                           va_list values) {
  char line[LINE_BYTES_MAX];
  int length = snprintf(line, sizeof line, "%s", prefix);
  length += vsnprintf(line + length, sizeof line - (size_t)length, format, values);
  if (length > LINE_BYTES_MAX - 1) length = LINE_BYTES_MAX - 1;
  line[length++] = '\n';
  pthread_mutex_lock(&one_at_a_time);
  /* There is nobody to tell when the console itself fails. */
  ssize_t written = write(console, line, (size_t)length);
  (void)written;
  pthread_mutex_unlock(&one_at_a_time);
}

void say(const char *format, ...) {
  va_list values;
  va_start(values, format);
  say_line("", format, values);
  va_end(values);
}

void say_error(const char *format, ...) {
  static _Atomic unsigned said;
  if (atomic_fetch_add(&said, 1) >= ERRORS_SAID_MAX) return;
  va_list values;
  va_start(values, format);
  say_line("VF ERROR ", format, values);
  va_end(values);
}

void give_up(const char *format, ...) {
  va_list values;
  va_start(values, format);
  say_line("VF ERROR ", format, values);
  va_end(values);
  exit(2);
}
