// Makes reads or flushes of some files fail with EIO while a flag file exists: LD_PRELOAD into the
// agent.
//   FAULT_FILES  how the paths of the files end
//   FAULT_READ_FLAG, FAULT_FLUSH_FLAG  paths of the flag files
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_to_fail(int fd, const char *flag_name) {
  const char *end = getenv("FAULT_FILES");
  const char *flag = getenv(flag_name);
  char link[64], path[4096];
  if (end == NULL || flag == NULL || access(flag, F_OK) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = '\0';
  size_t tail = strlen(end);
  return (size_t)length >= tail && strcmp(path + length - tail, end) == 0;
}

ssize_t pread64(int fd, void *buffer, size_t count, off64_t offset) {
  static ssize_t (*real)(int, void *, size_t, off64_t);
  if (real == NULL) real = (ssize_t(*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
  if (is_to_fail(fd, "FAULT_READ_FLAG")) {
    errno = EIO;
    return -1;
  }
  return real(fd, buffer, count, offset);
}

ssize_t pread(int fd, void *buffer, size_t count, off_t offset) {
  return pread64(fd, buffer, count, offset);
}

ssize_t preadv64(int fd, const struct iovec *vectors, int count, off64_t offset) {
  static ssize_t (*real)(int, const struct iovec *, int, off64_t);
  if (real == NULL) {
    real = (ssize_t(*)(int, const struct iovec *, int, off64_t))dlsym(RTLD_NEXT, "preadv64");
  }
  if (is_to_fail(fd, "FAULT_READ_FLAG")) {
    errno = EIO;
    return -1;
  }
  return real(fd, vectors, count, offset);
}

ssize_t preadv(int fd, const struct iovec *vectors, int count, off_t offset) {
  return preadv64(fd, vectors, count, offset);
}

int fdatasync(int fd) {
  static int (*real)(int);
  if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  if (is_to_fail(fd, "FAULT_FLUSH_FLAG")) {
    errno = EIO;
    return -1;
  }
  return real(fd);
}
