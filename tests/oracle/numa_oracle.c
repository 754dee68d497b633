/*
 * A QEMU plugin that counts every user-mode memory access of chosen guest processes, by thread,
 * CPU, virtual page and physical page: the truth that access samples are held against.
 *
 * Idle until the guest marks: it looks at each instruction once, when QEMU translates it, for a NOP
 * whose displacement no compiler writes. That NOP calls mark() with the guest's registers; guest.py
 * puts it there. From TRACK on, the kernel's __switch_to (the guest says where it is) tells which
 * thread each CPU runs, and user code is translated anew with counters; STOP writes the table and
 * takes the counters out again.
 *
 * Counted: loads and stores as QEMU performs them (a 32-byte vector load is two of 16 bytes), their
 * bytes, the instructions that made at least one (counted where its first access went), and the
 * cache lines that a CPU's own model caches had to fetch. Not counted: instruction fetch, page
 * walks, and what the kernel reads and writes for the process.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu_api.h"

EXPORT int qemu_plugin_version = 4;

enum { PAGE_SHIFT = 12, LINE_SHIFT = 6, MAX_PROCESSES = 64, LEVELS = 2 };
enum command { TRACK, SELECT, COUNT, STOP, FINE };
#define USER_END (1ULL << 47)

/* nopl 0x616d756e(%rax) */
static const uint8_t MARK[] = {0x0f, 0x1f, 0x80, 0x6e, 0x75, 0x6d, 0x61};

static void fail(const char *what)
{
	fprintf(stderr, "numa_oracle: %s\n", what);
	abort();
}

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (!memory)
		fail("out of memory");
	return memory;
}

/* --- the model caches: least recently used, physical lines, each CPU on its own */

static struct {
	unsigned int kib, ways;
} levels[LEVELS] = {{32, 8}, {1024, 16}};

struct cache {
	uint64_t *lines; /* per set, most recently used first; a line number plus one, 0 for none */
	uint64_t sets;
	unsigned int ways;
};

static void cache_init(struct cache *cache, unsigned int kib, unsigned int ways)
{
	cache->ways = ways;
	cache->sets = ways ? ((uint64_t)kib << 10 >> LINE_SHIFT) / ways : 0;
	cache->lines = allocate(cache->sets * ways + 1, sizeof(*cache->lines));
}

static bool cache_has(struct cache *cache, uint64_t line)
{
	if (!cache->ways)
		return false;
	uint64_t *set = cache->lines + line % cache->sets * cache->ways;
	unsigned int way = 0;

	while (way < cache->ways - 1 && set[way] != line + 1)
		way++;
	bool hit = set[way] == line + 1;
	memmove(set + 1, set, way * sizeof(*set));
	set[0] = line + 1;
	return hit;
}

/* --- what is counted: one table per CPU, so that none waits for another */

struct row {
	uint64_t page, frame;
	int32_t tgid, tid;
	uint64_t loads, stores, bytes, instructions, misses;
};

struct vcpu {
	bool selected; /* the running thread is one of those to count */
	int32_t tgid, tid;
	const uint64_t *serial; /* user instructions begun, see on_translation */
	uint64_t last_serial;
	struct cache caches[LEVELS];
	struct row *rows;
	uint64_t size, used; /* size: a power of two */
	GByteArray *buffer;
} __attribute__((aligned(128)));

static struct vcpu *vcpus;
static int vcpu_count;
static qemu_plugin_u64 serial;
static bool counting;

static struct row *find_row(struct row *rows, uint64_t size, const struct row *key)
{
	uint64_t hash = (key->page ^ key->frame << 20 ^ (uint64_t)(uint32_t)key->tid << 40);

	hash *= 0x9e3779b97f4a7c15;
	for (hash ^= hash >> 32;; hash++) {
		struct row *row = rows + (hash & (size - 1));

		if (row->page == key->page && row->frame == key->frame && row->tid == key->tid &&
		    row->tgid == key->tgid)
			return row;
		if (!row->tid)
			return row;
	}
}

static void grow(struct vcpu *vcpu)
{
	uint64_t size = vcpu->size ? vcpu->size * 2 : 1 << 14;
	struct row *rows = allocate(size, sizeof(*rows));

	for (uint64_t i = 0; i < vcpu->size; i++)
		if (vcpu->rows[i].tid)
			*find_row(rows, size, vcpu->rows + i) = vcpu->rows[i];
	free(vcpu->rows);
	vcpu->rows = rows;
	vcpu->size = size;
}

static struct row *row_of(struct vcpu *vcpu, uint64_t page, uint64_t frame)
{
	struct row key = {.page = page, .frame = frame, .tgid = vcpu->tgid, .tid = vcpu->tid};
	struct row *row = find_row(vcpu->rows, vcpu->size, &key);

	if (row->tid)
		return row;
	if (++vcpu->used > vcpu->size / 2) {
		grow(vcpu);
		row = find_row(vcpu->rows, vcpu->size, &key);
	}
	*row = key;
	return row;
}

static unsigned int fetched(struct vcpu *vcpu, uint64_t physical, uint64_t bytes)
{
	uint64_t last = (physical + bytes - 1) >> LINE_SHIFT;
	unsigned int misses = 0;

	for (uint64_t line = physical >> LINE_SHIFT; line <= last; line++) {
		int level = 0;

		while (level < LEVELS && !cache_has(vcpu->caches + level, line))
			level++;
		misses += level == LEVELS;
	}
	return misses;
}

/* Called for reads and writes apart; an atomic instruction makes both calls. */
static void on_access(unsigned int index, qemu_plugin_meminfo_t info, uint64_t vaddr, void *store)
{
	struct vcpu *vcpu = vcpus + index;

	if (!vcpu->selected || !__atomic_load_n(&counting, __ATOMIC_RELAXED))
		return;
	struct qemu_plugin_hwaddr *address = qemu_plugin_get_hwaddr(info, vaddr);

	if (!address || qemu_plugin_hwaddr_is_io(address))
		return;
	uint64_t physical = qemu_plugin_hwaddr_phys_addr(address);
	uint64_t bytes = 1ULL << qemu_plugin_mem_size_shift(info);
	struct row *row = row_of(vcpu, vaddr >> PAGE_SHIFT, physical >> PAGE_SHIFT);

	row->loads += !store;
	row->stores += !!store;
	row->bytes += bytes;
	row->instructions += *vcpu->serial != vcpu->last_serial;
	vcpu->last_serial = *vcpu->serial;
	row->misses += fetched(vcpu, physical, bytes);
}

/* --- which thread a CPU runs */

static struct {
	uint64_t switch_to, pid_offset, tgid_offset;
} kernel;
static int32_t processes[MAX_PROCESSES];
static int process_count;

enum { RDI, RSI, RDX, RCX, REGISTERS };
static const char *const NAMES[REGISTERS] = {"rdi", "rsi", "rdx", "rcx"};
static struct qemu_plugin_register *handles[REGISTERS];

static uint64_t read_register(struct vcpu *vcpu, int which)
{
	uint64_t value;

	g_byte_array_set_size(vcpu->buffer, 0);
	if (qemu_plugin_read_register(handles[which], vcpu->buffer) != sizeof(value))
		fail("a register cannot be read");
	memcpy(&value, vcpu->buffer->data, sizeof(value));
	return value;
}

static int32_t read_s32(struct vcpu *vcpu, uint64_t address)
{
	int32_t value;

	if (!qemu_plugin_read_memory_vaddr(address, vcpu->buffer, sizeof(value)))
		fail("the task cannot be read in guest memory");
	memcpy(&value, vcpu->buffer->data, sizeof(value));
	return value;
}

static void select_running(struct vcpu *vcpu)
{
	vcpu->selected = false;
	for (int i = 0; i < process_count; i++)
		vcpu->selected |= processes[i] == vcpu->tgid && vcpu->tid;
}

/* At __switch_to(previous, next). */
static void on_switch(unsigned int index, void *unused)
{
	struct vcpu *vcpu = vcpus + index;
	uint64_t next = read_register(vcpu, RSI);

	(void)unused;
	vcpu->tid = read_s32(vcpu, next + kernel.pid_offset);
	vcpu->tgid = read_s32(vcpu, next + kernel.tgid_offset);
	select_running(vcpu);
}

/* --- the guest's marks */

static qemu_plugin_id_t self;
static const char *output;
static uint64_t output_number;
static bool tracking, fine;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void mark(unsigned int index, void *unused);

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);
		uint8_t code[sizeof(MARK)];

		if (tracking && address == kernel.switch_to)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_switch,
							       QEMU_PLUGIN_CB_R_REGS, NULL);
		if (address >= USER_END)
			continue;
		if (qemu_plugin_insn_size(insn) == sizeof(MARK) &&
		    qemu_plugin_insn_data(insn, code, sizeof(code)) == sizeof(code) &&
		    !memcmp(code, MARK, sizeof(code)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, mark, QEMU_PLUGIN_CB_R_REGS,
							       NULL);
		if (!tracking)
			continue;
		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
			insn, QEMU_PLUGIN_INLINE_ADD_U64, serial, 1);
		qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_R, NULL);
		qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_W, &vcpus);
	}
}

/*
 * QEMU takes interrupts between blocks of instructions, so a clock's tick would always show a
 * block's first instruction. With one instruction per block it shows each one as often as it is
 * executed.
 */
static void one_instruction_per_block(bool on)
{
	if (!current_accel || !object_property_set_bool)
		fail("this QEMU cannot switch to one instruction per block");
	if (!object_property_set_bool(current_accel(), "one-insn-per-tb", on, NULL))
		fail("one instruction per block was refused");
}

/* These two run while every CPU stands still, with all translations thrown away. */
static void begin(qemu_plugin_id_t id)
{
	for (int i = 0; i < vcpu_count; i++) {
		struct vcpu *vcpu = vcpus + i;

		vcpu->selected = false;
		vcpu->tid = vcpu->tgid = 0;
		vcpu->serial = qemu_plugin_scoreboard_find(serial.score, i);
		vcpu->used = vcpu->size = 0;
		grow(vcpu);
		for (int level = 0; level < LEVELS; level++)
			memset(vcpu->caches[level].lines, 0,
			       vcpu->caches[level].sets * vcpu->caches[level].ways *
				       sizeof(*vcpu->caches[level].lines));
	}
	if (fine)
		one_instruction_per_block(true);
	tracking = true;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
}

static void write_rows(FILE *file)
{
	for (int i = 0; i < vcpu_count; i++) {
		uint64_t cpu = i;

		for (uint64_t j = 0; j < vcpus[i].size; j++)
			if (vcpus[i].rows[j].tid &&
			    (fwrite(&cpu, sizeof(cpu), 1, file) != 1 ||
			     fwrite(vcpus[i].rows + j, sizeof(struct row), 1, file) != 1))
				fail("the output cannot be written");
	}
}

static void end(qemu_plugin_id_t id)
{
	char part[4096], path[4096];

	snprintf(path, sizeof(path), "%s.%llu", output, (unsigned long long)output_number);
	snprintf(part, sizeof(part), "%s.part", output);
	FILE *file = fopen(part, "wb");

	if (!file)
		fail("the output cannot be opened");
	write_rows(file);
	if (fclose(file) || rename(part, path))
		fail("the output cannot be finished");
	if (fine)
		one_instruction_per_block(false);
	fine = tracking = false;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
}

static void mark(unsigned int index, void *unused)
{
	struct vcpu *vcpu = vcpus + index;
	uint64_t argument[REGISTERS];

	(void)unused;
	for (int i = 0; i < REGISTERS; i++)
		argument[i] = read_register(vcpu, i);
	pthread_mutex_lock(&lock);
	switch ((enum command)argument[RDI]) {
	case TRACK:
		kernel.switch_to = argument[RSI];
		kernel.pid_offset = argument[RDX];
		kernel.tgid_offset = argument[RCX];
		process_count = 0;
		counting = false;
		qemu_plugin_reset(self, begin);
		break;
	case FINE:
		fine = true;
		break;
	case SELECT:
		if (process_count < MAX_PROCESSES)
			processes[process_count++] = (int32_t)argument[RSI];
		break;
	case COUNT:
		__atomic_store_n(&counting, true, __ATOMIC_RELAXED);
		break;
	case STOP:
		__atomic_store_n(&counting, false, __ATOMIC_RELAXED);
		output_number = argument[RSI];
		qemu_plugin_reset(self, end);
		break;
	}
	pthread_mutex_unlock(&lock);
}

/* --- start */

static void on_vcpu(qemu_plugin_id_t id, unsigned int index)
{
	GArray *registers = qemu_plugin_get_registers();
	const qemu_plugin_reg_descriptor *each = (const void *)registers->data;

	(void)id;
	pthread_mutex_lock(&lock);
	for (unsigned int i = 0; i < registers->len; i++)
		for (int which = 0; which < REGISTERS; which++)
			if (!strcmp(each[i].name, NAMES[which]))
				handles[which] = each[i].handle;
	pthread_mutex_unlock(&lock);
	g_array_free(registers, true);
	vcpus[index].buffer = g_byte_array_new();
	for (int level = 0; level < LEVELS; level++)
		cache_init(vcpus[index].caches + level, levels[level].kib, levels[level].ways);
}

/* Arguments: out=PATH, and l1=KIBxWAYS, l2=KIBxWAYS; 0x0 for no such cache. */
static bool parse(const char *argument)
{
	if (!strncmp(argument, "out=", 4)) {
		output = argument + 4;
		return true;
	}
	for (int level = 0; level < LEVELS; level++) {
		char name[] = {'l', (char)('1' + level), '=', 0};
		unsigned int kib, ways;

		if (strncmp(argument, name, 3))
			continue;
		if (sscanf(argument + 3, "%ux%u", &kib, &ways) != 2 || (ways && kib * 16 < ways))
			return false;
		levels[level].kib = kib;
		levels[level].ways = ways;
		return true;
	}
	return false;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	if (!info->system_emulation || strcmp(info->target_name, "x86_64")) {
		fprintf(stderr, "numa_oracle: needs the emulation of a whole x86_64 machine\n");
		return 1;
	}
	for (int i = 0; i < argc; i++)
		if (!parse(argv[i])) {
			fprintf(stderr, "numa_oracle: wrong argument %s\n", argv[i]);
			return 1;
		}
	if (!output || strlen(output) > 4000) {
		fprintf(stderr, "numa_oracle: out=PATH is missing or too long\n");
		return 1;
	}
	self = id;
	vcpu_count = info->system.max_vcpus;
	vcpus = aligned_alloc(sizeof(*vcpus), vcpu_count * sizeof(*vcpus));
	if (!vcpus)
		fail("out of memory");
	memset(vcpus, 0, vcpu_count * sizeof(*vcpus));
	serial.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	qemu_plugin_register_vcpu_init_cb(id, on_vcpu);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}
