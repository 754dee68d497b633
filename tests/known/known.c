// SPDX-License-Identifier: Apache-2.0
/*
 * A workload whose memory accesses are known: which thread spent how much time on which buffer.
 *
 * Every thread works in short slices, each on one item (a pattern on a buffer), chosen so that the
 * items' times approach their shares. Each slice's CPU time is measured (CLOCK_THREAD_CPUTIME_ID),
 * and its accesses are counted. The patterns themselves are in patterns.h, memory in buffers.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "buffers.h"
#include "patterns.h"

enum { MAX_SLOTS = 64, MAX_ITEMS = 16, MAX_TIDS = 65536, MAX_CPUS = 64 };

struct item {
	const struct pattern *pattern;
	struct buffer *from, *to;
	double share;
	struct cursor cursor;
	uint64_t steps; // of the next slice: adapted to its wanted length
	uint64_t slices;
	uint64_t done[MAX_NODES], time_ns[MAX_NODES]; // steps and time by the node of the CPU
};

struct slot {
	int number;
	int cpus[MAX_CPUS], n_cpus;
	bool hop; // run on one of the CPUs after the other, instead of on any of them
	struct item items[MAX_ITEMS];
	int n_items;
	int *tids, n_tids;
	uint64_t total_ns, hopped_ns;
	int at;
	uint64_t dice;
};

static struct slot slots[MAX_SLOTS];
static int n_slots;
static uint64_t slice_ns = 300000, hop_ns = 50000000, respawn_ns, graph_end_ns;
static double seconds;
static bool waits;
static atomic_bool over;

static const char HELP[] =
	"Usage: known [option]... --buffer SPEC... --thread SPEC...\n"
	"\n"
	"Reads and writes memory in known proportions, and prints what it did, as lines of\n"
	"JSON: at the start, at each line `mark` on standard input or SIGUSR1, and at the end,\n"
	"which is a line `stop`, the end of standard input (without --seconds), SIGTERM, or the\n"
	"time given.\n"
	"\n"
	"  --buffer NAME:KIB:PLACE  PLACE: any, interleave, or a node's number; or a file to\n"
	"                           map (shared, read-only): a path with a slash, KIB 0 for all\n"
	"  --thread CPUS/ITEM[,ITEM]...\n"
	"                           CPUS: - for any, 0+2 for one of these, 0~2 for each in turn\n"
	"                           ITEM: PATTERN:BUFFER=PERCENT, PATTERN:FROM>TO=PERCENT\n"
	"  --seconds S              end by itself\n"
	"  --slice-us N             length of a slice, 300 by default, varied by half\n"
	"  --hop-ms N               time on one CPU with ~, 50 by default\n"
	"  --respawn-ms N           end and make anew all threads but the first after so long,\n"
	"                           as a pool does that computes one graph\n"
	"  --huge                   allow transparent huge pages\n"
	"  --wait                   begin at the first line on standard input\n"
	"\n"
	"Example: known --buffer a:32768:0 --buffer b:32768:interleave --seconds 5 \\\n"
	"               --thread 0/stream:a=70,random:b=30 --thread '-/copy:a>b=100'\n"
	"\n"
	"Patterns:\n";

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

// --- threads

static void add_item(struct slot *slot, const char *spec)
{
	char name[32] = "", from[32] = "", to[32] = "";
	struct item *item = &slot->items[slot->n_items];
	double *share = &item->share;
	bool copies = sscanf(spec, "%31[^:]:%31[^>=]>%31[^=]=%lf", name, from, to, share) == 4;
	bool reads = !copies && sscanf(spec, "%31[^:]:%31[^>=]=%lf", name, from, share) == 3;
	bool plain = !copies && !reads && sscanf(spec, "%31[^:=]=%lf", name, share) == 2;
	if (slot->n_items == MAX_ITEMS || !(copies || reads || plain))
		die("%s: not PATTERN:BUFFER=PERCENT, or too many", spec);
	item->pattern = find_pattern(name);
	if (!item->pattern)
		die("%s: there is no pattern %s", spec, name);
	if (plain != item->pattern->bare || copies != item->pattern->copies)
		die("%s: the pattern wants another number of buffers", spec);
	item->from = plain ? NULL : find_buffer(from);
	item->to = copies ? find_buffer(to) : item->from;
	item->steps = 1000;
	item->cursor.dice = 0x9e3779b97f4a7c15ull * (slot->number * MAX_ITEMS + slot->n_items + 1);
	if (item->pattern->writes && item->to->file)
		die("%s: files are mapped read-only", spec);
	if (item->pattern->chases) {
		if (item->from->file)
			die("%s: files hold no pointers", spec);
		item->from->chased = true;
	}
	slot->n_items++;
}

static void add_thread(char *spec)
{
	struct slot *slot = &slots[n_slots];
	char *items = strchr(spec, '/'), *save = NULL, *end;
	if (n_slots == MAX_SLOTS || !items)
		die("--thread %s: not CPUS/ITEM..., or too many", spec);
	*items++ = 0;
	slot->number = n_slots++;
	slot->dice = 77 + slot->number;
	slot->hop = strchr(spec, '~');
	for (char *at = spec; *at && strcmp(spec, "-") && slot->n_cpus < MAX_CPUS;
	     at = end + !!*end) {
		slot->cpus[slot->n_cpus++] = strtol(at, &end, 10);
		if (end == at)
			die("--thread %s/...: not a list of CPUs", spec);
	}
	for (char *item = strtok_r(items, ",", &save); item; item = strtok_r(NULL, ",", &save))
		add_item(slot, item);
	slot->tids = calloc(MAX_TIDS, sizeof(int));
}

static void pin(const struct slot *slot)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	for (int n = 0; n < slot->n_cpus; n++)
		if (!slot->hop || n == slot->at % slot->n_cpus)
			CPU_SET(slot->cpus[n], &set);
	if (slot->n_cpus && sched_setaffinity(0, sizeof(set), &set))
		die("thread %d: sched_setaffinity: %s", slot->number, strerror(errno));
}

// The item that is furthest behind its share.
static struct item *next_item(struct slot *slot)
{
	struct item *best = NULL;
	double most = -1e300;
	for (int n = 0; n < slot->n_items; n++) {
		struct item *item = &slot->items[n];
		double used = 0;
		for (int node = 0; node < MAX_NODES; node++)
			used += item->time_ns[node];
		double behind = item->share / 100 * slot->total_ns - used;
		if (behind > most) {
			most = behind;
			best = item;
		}
	}
	return best;
}

static unsigned here(void)
{
	unsigned cpu, node;
	getcpu(&cpu, &node);
	return node % MAX_NODES;
}

static void add(uint64_t *total, uint64_t more)
{
	__atomic_store_n(total, *total + more, __ATOMIC_RELAXED); // the main thread reads them
}

// Work on an item for about a slice; `began_ns` is the thread's CPU time before, the result after.
static uint64_t work(struct slot *slot, struct item *item, uint64_t began_ns, unsigned *node)
{
	struct area from = {item->from ? item->from->start : NULL,
			    item->from ? item->from->bytes : 0};
	struct area to = {item->to ? item->to->start : NULL, item->to ? item->to->bytes : 0};
	uint64_t steps = item->pattern->run(&item->cursor, from, to, item->steps);
	uint64_t ended_ns = now_ns(CLOCK_THREAD_CPUTIME_ID), spent_ns = ended_ns - began_ns;
	unsigned then = here();
	add(&item->time_ns[*node], spent_ns / 2);
	add(&item->time_ns[then], spent_ns - spent_ns / 2);
	add(&item->done[*node], steps / 2);
	add(&item->done[then], steps - steps / 2);
	add(&item->slices, 1);
	*node = then;
	slot->total_ns += spent_ns;
	// A slice's length varies by half, so that no sampling clock runs in step with it.
	double wanted_ns = slice_ns * (0.5 + (roll(&slot->dice) >> 11) * 0x1p-53);
	double factor = wanted_ns / (spent_ns ? spent_ns : 1);
	factor = factor > 4 ? 4 : factor < 0.25 ? 0.25 : factor;
	item->steps = steps * factor < 16 ? 16 : (uint64_t)(steps * factor);
	return ended_ns;
}

static void *live(void *argument)
{
	struct slot *slot = argument;
	if (slot->n_tids < MAX_TIDS) {
		slot->tids[slot->n_tids] = syscall(SYS_gettid);
		__atomic_store_n(&slot->n_tids, slot->n_tids + 1, __ATOMIC_RELEASE);
	}
	pin(slot);
	uint64_t at_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
	unsigned node = here();
	while (!over && (!respawn_ns || now_ns(CLOCK_MONOTONIC) < graph_end_ns)) {
		at_ns = work(slot, next_item(slot), at_ns, &node);
		if (slot->hop && slot->total_ns - slot->hopped_ns > hop_ns) {
			slot->hopped_ns = slot->total_ns;
			slot->at++;
			pin(slot);
			node = here();
		}
	}
	return NULL;
}

static pthread_t start(void *(*body)(void *), void *argument)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, body, argument);
	if (error)
		die("pthread_create: %s", strerror(error));
	return thread;
}

// Compute one graph after the other, with a pool that is made for each: as ggml does it.
static void *lead(void *argument)
{
	pthread_t workers[MAX_SLOTS];
	(void)argument;
	while (!over) {
		graph_end_ns = now_ns(CLOCK_MONOTONIC) + respawn_ns;
		for (int n = 1; n < n_slots; n++)
			workers[n] = start(live, &slots[n]);
		slots[0].n_tids = 0; // always the same one
		live(&slots[0]);
		for (int n = 1; n < n_slots; n++)
			pthread_join(workers[n], NULL);
	}
	return NULL;
}

// --- what is told

static uint64_t print_by_node(const char *name, const uint64_t *amounts)
{
	uint64_t total = 0;
	printf("\"%s\": {", name);
	for (int node = 0, any = 0; node < MAX_NODES; node++) {
		uint64_t amount = __atomic_load_n(&amounts[node], __ATOMIC_RELAXED);
		if (amount)
			printf("%s\"%d\": %lu", any++ ? ", " : "", node, amount);
		total += amount;
	}
	printf("}");
	return total;
}

static void print_item(const struct item *item)
{
	const struct pattern *pattern = item->pattern;
	printf("{\"pattern\": \"%s\", \"share\": %g, ", pattern->name, item->share);
	printf("\"from\": \"%s\", \"to\": \"%s\", ", pattern->reads ? item->from->name : "",
	       pattern->writes ? item->to->name : "");
	print_by_node("time_ns", item->time_ns);
	printf(", ");
	uint64_t done = print_by_node("steps", item->done);
	printf(", \"reads\": %lu, \"writes\": %lu, \"access_bytes\": %u, \"exact\": %s, ",
	       done * pattern->reads, done * pattern->writes, pattern->access_bytes,
	       pattern->exact ? "true" : "false");
	printf("\"slices\": %lu}", __atomic_load_n(&item->slices, __ATOMIC_RELAXED));
}

static void print_truth(const char *event)
{
	printf("{\"event\": \"%s\", \"t_ns\": %lu, \"slots\": [", event, now_ns(CLOCK_MONOTONIC));
	for (int n = 0; n < n_slots; n++) {
		int n_tids = __atomic_load_n(&slots[n].n_tids, __ATOMIC_ACQUIRE);
		printf("%s{\"slot\": %d, \"tids\": [", n ? ", " : "", n);
		for (int each = 0; each < n_tids; each++)
			printf("%s%d", each ? ", " : "", slots[n].tids[each]);
		printf("], \"items\": [");
		for (int each = 0; each < slots[n].n_items; each++) {
			fputs(each ? ", " : "", stdout);
			print_item(&slots[n].items[each]);
		}
		printf("]}");
	}
	printf("]}\n");
	fflush(stdout);
}

// --- until when

// Returns whether to go on.
static bool obey(FILE *input)
{
	char line[64];
	if (!fgets(line, sizeof(line), input))
		return seconds != 0;
	if (!strcmp(line, "mark\n"))
		print_truth("mark");
	return strcmp(line, "stop\n");
}

static void wait_for_end(int signals)
{
	uint64_t end_ns = now_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
	struct pollfd inputs[] = {{.fd = signals, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	for (;;) {
		int64_t left_ms =
			seconds ? (int64_t)(end_ns - now_ns(CLOCK_MONOTONIC)) / 1000000 : -1;
		if (seconds && left_ms <= 0)
			return;
		poll(inputs, 2, left_ms);
		struct signalfd_siginfo info;
		if (inputs[0].revents && read(signals, &info, sizeof(info)) == sizeof(info)) {
			if (info.ssi_signo != SIGUSR1)
				return;
			print_truth("mark");
		}
		if (inputs[1].revents && !obey(stdin))
			return;
		if (inputs[1].revents && feof(stdin))
			inputs[1].fd = -1;
	}
}

static int take_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static void option(const char *name, char *value)
{
	if (!strcmp(name, "--buffer"))
		add_buffer(value);
	else if (!strcmp(name, "--thread"))
		add_thread(value);
	else if (!strcmp(name, "--seconds"))
		seconds = atof(value);
	else if (!strcmp(name, "--slice-us"))
		slice_ns = atof(value) * 1e3;
	else if (!strcmp(name, "--hop-ms"))
		hop_ns = atof(value) * 1e6;
	else if (!strcmp(name, "--respawn-ms"))
		respawn_ns = atof(value) * 1e6;
	else
		die("unknown option %s; see --help", name);
}

static void parse(int argc, char **argv)
{
	for (int n = 1; n < argc; n++) {
		if (!strcmp(argv[n], "--help")) {
			fputs(HELP, stdout);
			for (const struct pattern *each = PATTERNS; each->name; each++)
				printf("  %-12s %s\n", each->name, each->what);
			exit(0);
		} else if (!strcmp(argv[n], "--huge")) {
			huge = true;
		} else if (!strcmp(argv[n], "--wait")) {
			waits = true;
		} else if (n + 1 == argc) {
			die("%s wants a value; see --help", argv[n]);
		} else {
			option(argv[n], argv[n + 1]);
			n++;
		}
	}
	if (!n_slots)
		die("no --thread; see --help");
}

int main(int argc, char **argv)
{
	pthread_t threads[MAX_SLOTS];
	parse(argc, argv);
	int signals = take_signals();
	for (int n = 0; n < n_buffers; n++) {
		(buffers[n].file ? map_file : map_memory)(&buffers[n]);
		if (buffers[n].chased)
			make_ring((struct area){buffers[n].start, buffers[n].bytes});
	}
	print_buffers();
	setvbuf(stdin, NULL, _IONBF, 0); // what is buffered, poll does not see
	char line[64];
	if (waits && !fgets(line, sizeof(line), stdin))
		return 0;
	int started = respawn_ns ? 1 : n_slots;
	for (int n = 0; n < started; n++)
		threads[n] = start(respawn_ns ? lead : live, &slots[n]);
	wait_for_end(signals);
	over = true;
	for (int n = 0; n < started; n++)
		pthread_join(threads[n], NULL);
	print_truth("end");
	return 0;
}
