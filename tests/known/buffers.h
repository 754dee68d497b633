// SPDX-License-Identifier: Apache-2.0
/* Memory of the workload of known truth: what --buffer asks for, where it lies, and what it says.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_BUFFERS = 16, MAX_NODES = 8, PAGE = 4096 };

struct buffer {
	char name[32];
	uint8_t *start;
	uint64_t bytes;
	char place[256]; // "any", "interleave", a node's number, or a file's path
	bool file;
	bool chased; // holds the ring of pointers that the pattern `chase` follows
};

static struct buffer buffers[MAX_BUFFERS];
static int n_buffers;
static bool huge;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fputs("known: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(2);
}

static void bind_memory(const struct buffer *buffer)
{
	unsigned long mask = ~0ul;
	int mode = MPOL_INTERLEAVE | MPOL_F_STATIC_NODES;
	if (!strcmp(buffer->place, "any"))
		return;
	if (strcmp(buffer->place, "interleave")) {
		mask = 1ul << atoi(buffer->place);
		mode = MPOL_BIND;
	} else {
		// Nodes that are not there make the call fail, so ask for those that are allowed.
		int current;
		if (syscall(SYS_get_mempolicy, &current, &mask, 64, 0, MPOL_F_MEMS_ALLOWED))
			die("get_mempolicy: %s", strerror(errno));
	}
	if (syscall(SYS_mbind, buffer->start, buffer->bytes, mode, &mask, 64, 0))
		die("buffer %s on %s: mbind: %s", buffer->name, buffer->place, strerror(errno));
}

static void map_memory(struct buffer *buffer)
{
	// The kernel merges neighbouring mappings: pages that nobody may touch keep them apart.
	uint8_t *start =
		mmap(NULL, buffer->bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	buffer->start = start + PAGE;
	if (start == MAP_FAILED || mprotect(buffer->start, buffer->bytes, PROT_READ | PROT_WRITE))
		die("buffer %s: mmap: %s", buffer->name, strerror(errno));
	madvise(buffer->start, buffer->bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	bind_memory(buffer);
	for (uint64_t at = 0; at < buffer->bytes; at += 8)
		*(volatile uint64_t *)(buffer->start + at) = at;
}

static void map_file(struct buffer *buffer)
{
	struct stat status;
	int file = open(buffer->place, O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &status))
		die("buffer %s: %s: %s", buffer->name, buffer->place, strerror(errno));
	if (!buffer->bytes || buffer->bytes > (uint64_t)status.st_size)
		buffer->bytes = status.st_size & -64ull;
	buffer->start = mmap(NULL, buffer->bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
	if (buffer->start == MAP_FAILED)
		die("buffer %s: mmap: %s", buffer->name, strerror(errno));
	for (uint64_t at = 0; at < buffer->bytes; at += PAGE)
		(void)*(volatile uint8_t *)(buffer->start + at);
}

static void add_buffer(const char *spec)
{
	struct buffer *buffer = &buffers[n_buffers];
	unsigned long kib;
	if (n_buffers == MAX_BUFFERS ||
	    sscanf(spec, "%31[^:]:%lu:%255s", buffer->name, &kib, buffer->place) != 3)
		die("--buffer %s: not NAME:KIB:PLACE, or too many", spec);
	buffer->file = strchr(buffer->place, '/');
	buffer->bytes = kib << 10;
	if (!buffer->file && (!kib || kib % 4))
		die("--buffer %s: KIB must be a multiple of 4", spec);
	n_buffers++;
}

static struct buffer *find_buffer(const char *name)
{
	for (int n = 0; n < n_buffers; n++)
		if (!strcmp(buffers[n].name, name))
			return &buffers[n];
	die("no --buffer %s before it is used", name);
}

static void print_nodes(const struct buffer *buffer)
{
	enum { BATCH = 1024 };
	uint64_t pages[MAX_NODES] = {0};
	void *each[BATCH];
	int status[BATCH];
	for (uint64_t at = 0; at < buffer->bytes; at += BATCH * PAGE) {
		int count = 0;
		for (uint64_t page = at; page < buffer->bytes && count < BATCH; page += PAGE)
			each[count++] = buffer->start + page;
		if (syscall(SYS_move_pages, 0, count, each, NULL, status, 0))
			memset(status, -1, sizeof(status));
		for (int n = 0; n < count; n++)
			if (status[n] >= 0 && status[n] < MAX_NODES)
				pages[status[n]]++;
	}
	for (int node = 0, any = 0; node < MAX_NODES; node++)
		if (pages[node])
			printf("%s\"%d\": %lu", any++ ? ", " : "", node, pages[node]);
}

static void print_buffers(void)
{
	printf("{\"event\": \"ready\", \"pid\": %d, \"buffers\": [", getpid());
	for (int n = 0; n < n_buffers; n++) {
		const struct buffer *buffer = &buffers[n];
		printf("%s{\"name\": \"%s\", \"place\": \"%s\", \"addr\": %lu, \"bytes\": %lu, ",
		       n ? ", " : "", buffer->name, buffer->place, (uint64_t)buffer->start,
		       buffer->bytes);
		printf("\"node_pages\": {");
		print_nodes(buffer);
		printf("}}");
	}
	printf("]}\n");
	fflush(stdout);
}
