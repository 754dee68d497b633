// SPDX-License-Identifier: Apache-2.0
/*
 * `counted PATTERN KIB ROUNDS`: after a line on standard input, two threads one after the other
 * make a known number of accesses to a buffer, whose address was printed.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <immintrin.h>

static uint8_t *buffer;
static size_t bytes;
static int rounds;
static const char *what;

__attribute__((target("avx2"))) static void vectors(size_t size)
{
	volatile __m256i *words = (void *)buffer;
	for (size_t i = 0; i < size / 32; i++)
		(void)words[i];
}

static void once(size_t size)
{
	volatile uint64_t *words = (void *)buffer;
	_Atomic uint64_t *atomic = (void *)buffer;
	if (!strcmp(what, "load"))
		for (size_t i = 0; i < size / 8; i++)
			(void)words[i];
	if (!strcmp(what, "store"))
		for (size_t i = 0; i < size / 8; i++)
			words[i] = i;
	if (!strcmp(what, "atomic"))
		for (size_t i = 0; i < size / 64; i++)
			atomic_fetch_add(atomic + i * 8, 1);
	if (!strcmp(what, "vector"))
		vectors(size);
}

static void *work(void *unused)
{
	for (int round = 0; round < rounds; round++)
		once(bytes);
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	what = argv[1];
	bytes = (size_t)atoi(argv[2]) << 10;
	rounds = atoi(argv[3]);
	buffer = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(buffer, 1, bytes);
	printf("%lu\n", (unsigned long)buffer);
	fflush(stdout);
	getchar();
	pthread_create(&thread, 0, work, 0);
	pthread_join(thread, 0);
	work(0);
	printf("done\n");
	fflush(stdout);
	getchar();
	return argc < 4;
}
