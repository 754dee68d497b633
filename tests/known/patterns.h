// SPDX-License-Identifier: Apache-2.0
/*
 * Access patterns of the workload of known truth.
 *
 * Memory is read and written through volatile pointers: each step makes exactly the accesses that
 * the table at the end says, none is left out, merged or vectorised. Everything else of a loop
 * stays in registers. Each function is on its own in the program, to be found by its name.
 */
#pragma once

#include <immintrin.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PATTERN __attribute__((noinline, noclone)) static uint64_t
#define AVX2 __attribute__((target("avx2")))

enum { LINE = 64, STRIDE = 320, COPY_BYTES = 4096, WINDOW = 32768, LANES = 8 };

struct area {
	uint8_t *start;
	uint64_t bytes;
};

// Where a thread is with an item: the next position in bytes, and a state of chance.
struct cursor {
	uint64_t at;
	uint64_t dice;
};

static volatile uint64_t sink; // what was read counts, so that the compiler keeps it

// xorshift64* (Vigna, 2016).
static inline uint64_t roll(uint64_t *dice)
{
	*dice ^= *dice >> 12;
	*dice ^= *dice << 25;
	*dice ^= *dice >> 27;
	return *dice * 0x2545f4914f6cdd1dull;
}

// A number below `limit` from a random one.
static inline uint64_t below(uint64_t random, uint64_t limit)
{
	return (unsigned __int128)random * limit >> 64;
}

// At most `steps` steps of `bytes` each to the end of the area; at its end, from its start.
static inline uint64_t clip(struct cursor *cursor, uint64_t size, uint64_t bytes, uint64_t steps)
{
	if (cursor->at + bytes > size)
		cursor->at = 0;
	uint64_t most = (size - cursor->at) / bytes;
	return steps < most ? steps : most;
}

PATTERN stream(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)to;
	steps = clip(cursor, from.bytes, 8, steps);
	volatile uint64_t *at = (void *)(from.start + cursor->at), *end = at + steps;
	uint64_t sum = 0;
	for (; at < end; at++)
		sum += *at;
	sink = sum;
	cursor->at += steps * 8;
	return steps;
}

PATTERN strided(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)to;
	steps = clip(cursor, from.bytes, STRIDE, steps);
	volatile uint8_t *at = from.start + cursor->at;
	uint64_t sum = 0;
	for (uint64_t n = 0; n < steps; n++, at += STRIDE)
		sum += *(volatile uint64_t *)at;
	sink = sum;
	cursor->at += steps * STRIDE;
	return steps;
}

PATTERN random_reads(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)to;
	volatile uint64_t *words = (void *)from.start;
	uint64_t dice = cursor->dice, sum = 0;
	for (uint64_t n = 0; n < steps; n++)
		sum += words[below(roll(&dice), from.bytes / 8)];
	sink = sum;
	cursor->dice = dice;
	return steps;
}

PATTERN chase(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)to;
	void *volatile *at = (void *)(from.start + cursor->at);
	for (uint64_t n = 0; n < steps; n++)
		at = *at;
	cursor->at = (uint8_t *)at - from.start;
	return steps;
}

// Every line of the area points to another, in one ring through all (Sattolo's shuffle).
static void make_ring(struct area area)
{
	uint64_t lines = area.bytes / LINE, dice = 88172645463325252ull;
	for (uint64_t n = 0; n < lines; n++)
		*(uint64_t *)(area.start + n * LINE) = n;
	for (uint64_t n = lines - 1; n > 0; n--) {
		uint64_t *one = (void *)(area.start + n * LINE);
		uint64_t *other = (void *)(area.start + below(roll(&dice), n) * LINE);
		uint64_t kept = *one;
		*one = *other;
		*other = kept;
	}
	for (uint64_t n = 0; n < lines; n++) {
		uint64_t *each = (void *)(area.start + n * LINE);
		*each = (uint64_t)area.start + *each * LINE;
	}
}

AVX2 PATTERN avx2_loads(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)to;
	steps = clip(cursor, from.bytes, sizeof(__m256i), steps);
	volatile __m256i *at = (void *)(from.start + cursor->at), *end = at + steps;
	__m256i sum = _mm256_setzero_si256();
	for (; at < end; at++)
		sum = _mm256_add_epi32(sum, *at);
	sink = _mm256_extract_epi64(sum, 0);
	cursor->at += steps * sizeof(__m256i);
	return steps;
}

static const int32_t LANE_WORDS[LANES] = {0, 1016, 2041, 3063, 4090, 5113, 6121, 7151};

// Eight words out of a window: the base moves on through the area, as in a row of a sparse matrix.
AVX2 PATTERN gathers(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)to;
	steps = clip(cursor, from.bytes - WINDOW, 4, steps);
	const int *at = (void *)(from.start + cursor->at), *end = at + steps;
	__m256i lanes = _mm256_loadu_si256((const __m256i *)LANE_WORDS);
	__m256i sum = _mm256_setzero_si256();
	for (; at < end; at++) {
		sum = _mm256_add_epi32(sum, _mm256_i32gather_epi32(at, lanes, 4));
		__asm__ volatile("" : "+x"(sum)); // each of them is made
	}
	sink = _mm256_extract_epi64(sum, 0);
	cursor->at += steps * 4;
	return steps;
}

// Eight words from anywhere: the base says nothing of where.
AVX2 PATTERN wide_gathers(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)to;
	uint64_t words = from.bytes / 4 < 1u << 30 ? from.bytes / 4 : 1u << 30;
	const int *base = (void *)from.start;
	__m256i state = _mm256_set1_epi32(cursor->dice | 1), sum = _mm256_setzero_si256();
	__m256i step = _mm256_setr_epi32(1664525, 22695477, 1103515245, 214013, 134775813, 69069,
					 16843009, 65793);
	__m256i mask = _mm256_set1_epi32((1 << (63 - __builtin_clzll(words))) - 1);
	for (uint64_t n = 0; n < steps; n++) {
		state = _mm256_add_epi32(_mm256_mullo_epi32(state, step), _mm256_set1_epi32(1));
		__m256i lanes = _mm256_and_si256(_mm256_srli_epi32(state, 3), mask);
		sum = _mm256_add_epi32(sum, _mm256_i32gather_epi32(base, lanes, 4));
		__asm__ volatile("" : "+x"(sum));
	}
	sink = _mm256_extract_epi64(sum, 0);
	cursor->dice += _mm256_extract_epi32(state, 0);
	return steps;
}

// No places by chance: an atomic waits for all that was before it, so that arithmetic between two
// of them takes time of its own, in which no memory is used.
PATTERN atomics(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)from;
	steps = clip(cursor, to.bytes, STRIDE, steps);
	uint8_t *at = to.start + cursor->at;
	uint64_t sum = 0;
	for (uint64_t n = 0; n < steps; n++, at += STRIDE)
		sum += atomic_fetch_add((_Atomic uint64_t *)at, n);
	sink = sum;
	cursor->at += steps * STRIDE;
	return steps;
}

PATTERN fill(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)from;
	steps = clip(cursor, to.bytes, 8, steps);
	volatile uint64_t *at = (void *)(to.start + cursor->at), *end = at + steps;
	for (; at < end; at++)
		*at = steps;
	cursor->at += steps * 8;
	return steps;
}

// The C library's own copy, not the compiler's: what instructions it uses is its choice.
static void *(*volatile library_copy)(void *, const void *, size_t) = memcpy;

PATTERN copy(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	uint64_t size = from.bytes < to.bytes ? from.bytes : to.bytes;
	steps = (steps + COPY_BYTES - 1) / COPY_BYTES;
	steps = clip(cursor, size, COPY_BYTES, steps);
	for (uint64_t n = 0; n < steps; n++, cursor->at += COPY_BYTES)
		library_copy(to.start + cursor->at, from.start + cursor->at, COPY_BYTES);
	return steps * COPY_BYTES;
}

PATTERN string_copy(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	uint64_t size = from.bytes < to.bytes ? from.bytes : to.bytes;
	steps = clip(cursor, size, 1, steps);
	void *source = from.start + cursor->at, *target = to.start + cursor->at;
	uint64_t count = steps;
	__asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(count) : : "memory");
	cursor->at += steps;
	return steps;
}

// Arithmetic that depends on every word read, some thirty cycles of it, in the same basic block.
PATTERN compute(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	(void)to;
	steps = clip(cursor, from.bytes, 8, steps);
	volatile uint64_t *at = (void *)(from.start + cursor->at), *end = at + steps;
	uint64_t mixed = 1;
	for (; at < end; at++) {
		mixed ^= *at;
		mixed *= 0xff51afd7ed558ccdull;
		mixed ^= mixed >> 33;
		mixed *= 0xc4ceb9fe1a85ec53ull;
		mixed ^= mixed >> 33;
		mixed *= 0x9e3779b97f4a7c15ull;
		mixed ^= mixed >> 29;
	}
	sink = mixed;
	cursor->at += steps * 8;
	return steps;
}

// No memory at all.
PATTERN nothing(struct cursor *cursor, struct area from, struct area to, uint64_t steps)
{
	uint64_t dice = cursor->dice;
	(void)from, (void)to;
	for (uint64_t n = 0; n < steps; n++)
		roll(&dice);
	cursor->dice = dice;
	return steps;
}

struct pattern {
	const char *name, *what;
	uint64_t (*run)(struct cursor *, struct area from, struct area to, uint64_t steps);
	unsigned reads, writes, access_bytes; // of a step
	bool copies, chases, bare;
	bool exact; // whether the number of instructions that access memory is known, or bytes only
	bool avx2;
};

static const struct pattern PATTERNS[] = {
	{"stream", "words, one after the other", stream, 1, 0, 8, .exact = true},
	{"strided", "words, 320 bytes apart", strided, 1, 0, 8, .exact = true},
	{"random", "words anywhere, independent of one another", random_reads, 1, 0, 8,
	 .exact = true},
	{"chase", "pointers, each leads to the next", chase, 1, 0, 8, .chases = true,
	 .exact = true},
	{"avx2", "32 bytes at a time", avx2_loads, 1, 0, 32, .exact = true, .avx2 = true},
	{"gather", "eight words of a window that moves", gathers, 8, 0, 4, .exact = true,
	 .avx2 = true},
	{"wide-gather", "eight words from anywhere", wide_gathers, 8, 0, 4, .exact = true,
	 .avx2 = true},
	{"atomic", "lock xadd, 320 bytes apart", atomics, 1, 1, 8, .exact = true},
	{"fill", "words written, one after the other", fill, 0, 1, 8, .exact = true},
	{"copy", "memcpy of the C library", copy, 1, 1, 1, .copies = true},
	{"string-copy", "rep movsb", string_copy, 1, 1, 1, .copies = true},
	{"compute", "words, with arithmetic on each", compute, 1, 0, 8, .exact = true},
	{"nothing", "arithmetic without memory", nothing, 0, 0, 0, .bare = true, .exact = true},
	{0},
};

static const struct pattern *find_pattern(const char *name)
{
	for (const struct pattern *each = PATTERNS; each->name; each++)
		if (!strcmp(each->name, name))
			return !each->avx2 || __builtin_cpu_supports("avx2") ? each : NULL;
	return NULL;
}
