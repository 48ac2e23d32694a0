// A share as a network filesystem is one: a FUSE mount without any cache that passes everything to a
// directory, so that two mounts of one directory are what two hosts have of one server.
//
//   failing-share <directory> <mountpoint> <faults>
//
// While a file <faults>/<operation> exists (read, write, fsync, open), that operation on files whose
// names end in .pages fails with the error number that the file holds. SIGSTOP makes it a share that
// hangs, its end one that is gone. Says "mounted" when it is; one request at a time, as root.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define NODES_MAX 4096
#define WRITE_BYTES_MAX (128 * 1024)
#define PATH_BYTES 4096

static const char *faults;
static int device;
/** Paths by node; a node that is unlinked keeps its number, and no other gets it. */
static struct { ino_t inode; char *path; } nodes[NODES_MAX];
static uint64_t node_count = FUSE_ROOT_ID + 1;
static _Alignas(8) char request[WRITE_BYTES_MAX + 8192];
static _Alignas(8) char answer[WRITE_BYTES_MAX + 8192];

static void reply(uint64_t unique, int error, const void *body, size_t bytes) {
  struct fuse_out_header head = {sizeof head + bytes, -error, unique};
  struct iovec parts[] = {{&head, sizeof head}, {(void *)body, bytes}};
  // A request that was interrupted is not there any more.
  if (writev(device, parts, 2) < 0 && errno != ENOENT) perror("failing-share: answer");
}

static int fault_of(const char *operation, const char *path) {
  size_t length = strlen(path);
  if (length < 6 || strcmp(path + length - 6, ".pages") != 0) return 0;
  char name[PATH_BYTES], number[16] = "";
  snprintf(name, sizeof name, "%s/%s", faults, operation);
  int fd = open(name, O_RDONLY);
  if (fd < 0) return 0;
  if (read(fd, number, sizeof number - 1) < 0) number[0] = '\0';
  close(fd);
  return atoi(number);
}

static const char *child_path(uint64_t parent, const char *name) {
  static char paths[2][PATH_BYTES];
  static int turn;
  char *path = paths[turn ^= 1];
  snprintf(path, PATH_BYTES, "%s/%s", nodes[parent].path, name);
  return path;
}

static uint64_t node_of(ino_t inode, const char *path) {
  uint64_t node = FUSE_ROOT_ID + 1;
  while (node < node_count && nodes[node].inode != inode) node++;
  if (node == NODES_MAX) exit(1);
  if (node == node_count) node_count++;
  free(nodes[node].path);
  nodes[node].inode = inode;
  nodes[node].path = strdup(path);
  return node;
}

static struct fuse_attr attr_of(const struct stat *seen) {
  return (struct fuse_attr){
      .ino = seen->st_ino,
      .size = seen->st_size,
      .blocks = seen->st_blocks,
      .atime = seen->st_atim.tv_sec,
      .mtime = seen->st_mtim.tv_sec,
      .ctime = seen->st_ctim.tv_sec,
      .atimensec = seen->st_atim.tv_nsec,
      .mtimensec = seen->st_mtim.tv_nsec,
      .ctimensec = seen->st_ctim.tv_nsec,
      .mode = seen->st_mode,
      .nlink = seen->st_nlink,
      .uid = seen->st_uid,
      .gid = seen->st_gid,
      .blksize = seen->st_blksize,
  };
}

/** Fills the answer's first bytes, or returns why not. */
static int look_up(const char *path, struct fuse_entry_out *entry) {
  struct stat seen;
  if (lstat(path, &seen) < 0) return errno;
  *entry = (struct fuse_entry_out){.nodeid = node_of(seen.st_ino, path), .attr = attr_of(&seen)};
  return 0;
}

static int get_attr(const char *path, struct fuse_attr_out *out) {
  struct stat seen;
  if (lstat(path, &seen) < 0) return errno;
  *out = (struct fuse_attr_out){.attr = attr_of(&seen)};
  return 0;
}

/** What is removed is no node for whatever gets its inode. */
static int forget_path(const char *path) {
  for (uint64_t node = FUSE_ROOT_ID + 1; node < node_count; node++) {
    if (nodes[node].inode != 0 && strcmp(nodes[node].path, path) == 0) nodes[node].inode = 0;
  }
  return 0;
}

static size_t list(DIR *directory, uint64_t offset, size_t bytes_max) {
  size_t bytes = 0;
  seekdir(directory, (long)offset);
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    size_t length = strlen(entry->d_name);
    size_t padded = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
    if (bytes + padded > bytes_max) break;
    struct fuse_dirent *out = (struct fuse_dirent *)(answer + bytes);
    memset(out, 0, padded);
    *out = (struct fuse_dirent){entry->d_ino, (uint64_t)telldir(directory), length, entry->d_type};
    memcpy(out->name, entry->d_name, length);
    bytes += padded;
  }
  return bytes;
}

/** Errors are positive; what is answered lies in `answer`, `*bytes` long. */
static int serve(const struct fuse_in_header *head, size_t *bytes) {
  const void *in = head + 1;
  const char *path = head->nodeid < node_count ? nodes[head->nodeid].path : NULL;
  struct fuse_entry_out *entry = (void *)answer;
  struct fuse_open_out *opened = (void *)answer;
  int error = 0;
  switch (head->opcode) {
  case FUSE_INIT: {
    const struct fuse_init_in *init = in;
    struct fuse_init_out *out = (void *)answer;
    *out = (struct fuse_init_out){
        .major = FUSE_KERNEL_VERSION,
        .minor = FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = init->max_readahead,
        .flags = FUSE_BIG_WRITES | FUSE_MAX_PAGES,
        .max_write = WRITE_BYTES_MAX,
        .max_pages = WRITE_BYTES_MAX / 4096,
    };
    *bytes = sizeof *out;
    return 0;
  }
  case FUSE_LOOKUP:
    *bytes = sizeof *entry;
    return look_up(child_path(head->nodeid, in), entry);
  case FUSE_GETATTR:
  case FUSE_SETATTR:
    *bytes = sizeof(struct fuse_attr_out);
    return get_attr(path, (void *)answer);
  case FUSE_MKDIR: {
    const struct fuse_mkdir_in *mkdir_in = in;
    const char *made = child_path(head->nodeid, (const char *)(mkdir_in + 1));
    *bytes = sizeof *entry;
    return mkdir(made, mkdir_in->mode) < 0 ? errno : look_up(made, entry);
  }
  case FUSE_UNLINK: {
    const char *gone = child_path(head->nodeid, in);
    return unlink(gone) < 0 ? errno : forget_path(gone);
  }
  case FUSE_RMDIR: {
    const char *gone = child_path(head->nodeid, in);
    return rmdir(gone) < 0 ? errno : forget_path(gone);
  }
  case FUSE_RENAME:
  case FUSE_RENAME2: {
    const char *old_name = (const char *)in + (head->opcode == FUSE_RENAME
                                                   ? sizeof(struct fuse_rename_in)
                                                   : sizeof(struct fuse_rename2_in));
    const char *from = child_path(head->nodeid, old_name);
    // Both begin with it.
    uint64_t parent = ((const struct fuse_rename_in *)in)->newdir;
    const char *to = child_path(parent, old_name + strlen(old_name) + 1);
    if (rename(from, to) < 0) return errno;
    forget_path(to);
    return forget_path(from);
  }
  case FUSE_LINK: {
    const struct fuse_link_in *link_in = in;
    const char *made = child_path(head->nodeid, (const char *)(link_in + 1));
    *bytes = sizeof *entry;
    return link(nodes[link_in->oldnodeid].path, made) < 0 ? errno : look_up(made, entry);
  }
  case FUSE_CREATE: {
    const struct fuse_create_in *create = in;
    const char *made = child_path(head->nodeid, (const char *)(create + 1));
    int fd = open(made, (int)create->flags | O_CREAT, create->mode);
    if (fd < 0) return errno;
    error = look_up(made, entry);
    opened = (void *)(entry + 1);
    *opened = (struct fuse_open_out){.fh = (uint64_t)fd, .open_flags = FOPEN_DIRECT_IO};
    *bytes = sizeof *entry + sizeof *opened;
    return error;
  }
  case FUSE_OPEN: {
    if ((error = fault_of("open", path)) != 0) return error;
    int fd = open(path, (int)((const struct fuse_open_in *)in)->flags & ~O_NOFOLLOW);
    if (fd < 0) return errno;
    *opened = (struct fuse_open_out){.fh = (uint64_t)fd, .open_flags = FOPEN_DIRECT_IO};
    *bytes = sizeof *opened;
    return 0;
  }
  case FUSE_READ: {
    const struct fuse_read_in *read_in = in;
    if ((error = fault_of("read", path)) != 0) return error;
    size_t size = read_in->size < WRITE_BYTES_MAX ? read_in->size : WRITE_BYTES_MAX;
    ssize_t done = pread((int)read_in->fh, answer, size, (off_t)read_in->offset);
    if (done < 0) return errno;
    *bytes = (size_t)done;
    return 0;
  }
  case FUSE_WRITE: {
    const struct fuse_write_in *write_in = in;
    if ((error = fault_of("write", path)) != 0) return error;
    ssize_t done =
        pwrite((int)write_in->fh, write_in + 1, write_in->size, (off_t)write_in->offset);
    if (done < 0) return errno;
    *(struct fuse_write_out *)answer = (struct fuse_write_out){.size = (uint32_t)done};
    *bytes = sizeof(struct fuse_write_out);
    return 0;
  }
  case FUSE_FSYNC:
    if ((error = fault_of("fsync", path)) != 0) return error;
    return fsync((int)((const struct fuse_fsync_in *)in)->fh) < 0 ? errno : 0;
  case FUSE_RELEASE:
    close((int)((const struct fuse_release_in *)in)->fh);
    return 0;
  case FUSE_OPENDIR: {
    DIR *directory = opendir(path);
    if (directory == NULL) return errno;
    *opened = (struct fuse_open_out){.fh = (uint64_t)(uintptr_t)directory};
    *bytes = sizeof *opened;
    return 0;
  }
  case FUSE_READDIR: {
    const struct fuse_read_in *read_in = in;
    size_t size = read_in->size < sizeof answer ? read_in->size : sizeof answer;
    *bytes = list((DIR *)(uintptr_t)read_in->fh, read_in->offset, size);
    return 0;
  }
  case FUSE_RELEASEDIR:
    closedir((DIR *)(uintptr_t)((const struct fuse_release_in *)in)->fh);
    return 0;
  case FUSE_STATFS: {
    struct statvfs seen;
    if (statvfs(path, &seen) < 0) return errno;
    struct fuse_statfs_out *out = (void *)answer;
    *out = (struct fuse_statfs_out){.st = {
        .blocks = seen.f_blocks, .bfree = seen.f_bfree, .bavail = seen.f_bavail,
        .files = seen.f_files, .ffree = seen.f_ffree, .bsize = (uint32_t)seen.f_bsize,
        .namelen = (uint32_t)seen.f_namemax, .frsize = (uint32_t)seen.f_frsize}};
    *bytes = sizeof *out;
    return 0;
  }
  case FUSE_FSYNCDIR:
  case FUSE_FLUSH:
    return 0;
  default:
    return ENOSYS;
  }
}

int main(int count, char **words) {
  if (count != 4 || (device = open("/dev/fuse", O_RDWR | O_CLOEXEC)) < 0) {
    perror("failing-share: /dev/fuse");
    return 2;
  }
  nodes[FUSE_ROOT_ID].path = words[1];
  faults = words[3];
  char options[128];
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
  if (mount("failing-share", words[2], "fuse.failing-share", MS_NOSUID | MS_NODEV, options) < 0) {
    perror("failing-share: mount");
    return 2;
  }
  puts("mounted");
  fflush(stdout);
  for (;;) {
    ssize_t length = read(device, request, sizeof request);
    // Unmounted.
    if (length < 0 && errno == ENODEV) return 0;
    if (length < 0) continue;
    const struct fuse_in_header *head = (const void *)request;
    int hasNoAnswer = head->opcode == FUSE_FORGET || head->opcode == FUSE_BATCH_FORGET ||
                      head->opcode == FUSE_INTERRUPT;
    if (hasNoAnswer) continue;
    size_t bytes = 0;
    int error = serve(head, &bytes);
    reply(head->unique, error, answer, error == 0 ? bytes : 0);
  }
}
