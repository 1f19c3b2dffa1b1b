/* Make the system calls of a list again, as fast as C can, and print the seconds they took, of the clock and of a processor.
 *
 *     replay LIST ROOT ITS_DESCRIPTOR BASE ITS_DESCRIPTOR
 *
 * LIST is what tests/bench/floor.py writes: for each call its letter, two
 * descriptors as the recording process knew them, two numbers, and two strings.
 * The list is in memory before the clock starts.  A call may fail where it did
 * when it was recorded; one that opens something may not.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS 4096

struct call {
	uint32_t letter, opens;
	int32_t one, other;
	int64_t first, second;
	uint32_t length, more;
};

static int known[DESCRIPTORS];
static char answer[1 << 16];

static int at(int recorded) { return recorded < 0 ? recorded : known[recorded % DESCRIPTORS]; }

static void times(struct timespec *when, int64_t ns)
{
	for (int i = 0; i < 2; i++) {
		when[i].tv_sec = ns / 1000000000 - (ns % 1000000000 < 0);
		when[i].tv_nsec = (ns % 1000000000 + 1000000000) % 1000000000;
	}
}

static long opening(const struct call *c, const char *name)
{
	struct open_how how = { .flags = c->first, .resolve = c->second };

	if (c->letter == 'O')
		return openat(at(c->one), name, c->first, c->second);
	return syscall(SYS_openat2, at(c->one), name, &how, sizeof how);
}

static long make(const struct call *c, const char *name, const char *data)
{
	struct stat st;
	struct timespec when[2];
	struct file_clone_range range = { at(c->other), 0, c->first, 0 };

	switch (c->letter) {
	case 's': return fstatat(at(c->one), name, &st, AT_SYMLINK_NOFOLLOW);
	case 'f': return fstat(at(c->one), &st);
	case 'u': return unlinkat(at(c->one), name, c->first);
	case 'w': return pwrite(at(c->one), data, c->more, c->first);
	case 't': times(when, c->first); return futimens(at(c->one), when);
	case 'T': times(when, c->first); return utimensat(at(c->one), name, when, AT_SYMLINK_NOFOLLOW);
	case 'c': return close(at(c->one));
	case 'o': return fchown(at(c->one), c->first, c->second);
	case 'm': return fchmod(at(c->one), c->first);
	case 'x': return fsetxattr(at(c->one), name, data, c->more, 0);
	case 'r': return fremovexattr(at(c->one), name);
	case 'l': return flistxattr(at(c->one), answer, sizeof answer);
	case 'g': return fgetxattr(at(c->one), name, answer, sizeof answer);
	case 'd': return mkdirat(at(c->one), name, c->first);
	case 'y': return symlinkat(data, at(c->one), name);
	case 'k': return linkat(at(c->other), data, at(c->one), name, 0);
	case 'n': return mknodat(at(c->one), name, c->first, c->second);
	case 'z': return ftruncate(at(c->one), c->first);
	case 'i': return ioctl(at(c->one), FICLONERANGE, &range);
	case 'R': return readlinkat(at(c->one), name, answer, sizeof answer);
	}
	fprintf(stderr, "no such call: %c\n", c->letter);
	exit(1);
}

static void replay(const char *from, const char *end)
{
	while (from < end) {
		const struct call *c = (const struct call *)from;
		const char *name = from + sizeof *c, *data = name + c->length + 1;

		if (c->letter == 'O' || c->letter == '2') {
			long fd = opening(c, name);

			if (c->opens && fd < 0) {
				perror(name);
				exit(1);
			}
			if (c->opens)
				known[c->other % DESCRIPTORS] = fd;
		} else {
			make(c, name, data);
		}
		from += (sizeof *c + c->length + 1 + c->more + 1 + 7) / 8 * 8;
	}
}

static double since(const struct timespec *begun)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - begun->tv_sec + (now.tv_nsec - begun->tv_nsec) / 1e9;
}

int main(int count, char **words)
{
	struct timespec begun;
	struct rusage before, after;
	struct stat st;
	int list = count == 6 ? open(words[1], O_RDONLY) : -1;
	char *calls;

	if (list < 0 || fstat(list, &st))
		return 2;
	calls = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, list, 0);
	if (calls == MAP_FAILED)
		return 2;
	memset(known, -1, sizeof known); /* what was never opened here is no descriptor */
	known[atoi(words[3]) % DESCRIPTORS] = open(words[2], O_RDONLY | O_DIRECTORY);
	known[atoi(words[5]) % DESCRIPTORS] = open(words[4], O_RDONLY | O_DIRECTORY);
	getrusage(RUSAGE_SELF, &before);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	replay(calls, calls + st.st_size);
	double seconds = since(&begun);
	getrusage(RUSAGE_SELF, &after);
#define CPU(u) (u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6)
	printf("%.6f %.6f\n", seconds, CPU(after) - CPU(before));
	return 0;
}
