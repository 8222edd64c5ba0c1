/* A dictionary as python's: an index of 4 bytes a slot, entries in order of insertion, keys and values
 * somewhere else. It is filled, then looked up at random.
 *
 * Arguments: ENTRIES, LOOKUPS, and `trace` to have the pages of the dictionary printed that are referred to,
 * in this order (but none twice in a row), instead of the sum. All its memory is one mapping, and all its
 * accesses are noted. */
#include "remote.h"

#define VALUE_WORDS 32ul
#define KEY_BYTES 48ul

struct entry {
  uint64_t hash;
  const char* key;
  const uint64_t* value;
};

static unsigned char* arena;
static size_t arena_bytes, used;
static int tracing;

/* `bytes` at `at` are about to be read or written. */
static void note(const void* at, size_t bytes) {
  static size_t last = (size_t)-1;
  if (!tracing) return;
  const size_t first = (size_t)((const unsigned char*)at - arena);
  for (size_t page = first / PAGE; page <= (first + bytes - 1) / PAGE; page++) {
    if (page == last) continue;
    printf("%lu\n", page);
    last = page;
  }
}

static void* take(size_t bytes) {
  void* at = arena + used;
  used += bytes;
  if (used > arena_bytes) give_up("the mapping is too small");
  return at;
}

static uint64_t hash_of(const char* key) { /* Fowler, Noll and Vo's FNV-1a */
  uint64_t hash = 14695981039346656037ull;
  for (; *key != 0; key++) hash = (hash ^ (unsigned char)*key) * 1099511628211ull;
  return hash ^ hash >> 32;
}

/* The slot of `key`, or the empty one where it belongs. */
static uint32_t* find(uint32_t* slots, size_t mask, const struct entry* entries, const char* key,
                      uint64_t hash) {
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    note(&slots[i], sizeof *slots);
    if (slots[i] == 0) return &slots[i];
    const struct entry* entry = &entries[slots[i] - 1];
    note(entry, sizeof *entry);
    if (entry->hash != hash) continue;
    note(entry->key, KEY_BYTES);
    if (strcmp(entry->key, key) == 0) return &slots[i];
  }
}

static void insert(uint32_t* slots, size_t mask, struct entry* entries, size_t at, const char* key) {
  const uint64_t hash = hash_of(key);
  uint32_t* slot = find(slots, mask, entries, key, hash);
  char* kept = take(KEY_BYTES);
  uint64_t* value = take(VALUE_WORDS * sizeof *value);
  note(kept, KEY_BYTES);
  strcpy(kept, key);
  note(value, VALUE_WORDS * sizeof *value);
  for (size_t i = 0; i < VALUE_WORDS; i++) value[i] = at + i;
  note(&entries[at], sizeof *entries);
  entries[at] = (struct entry){hash, kept, value};
  note(slot, sizeof *slot);
  *slot = (uint32_t)at + 1;
}

int main(int argc, char** argv) {
  if (argc < 3) give_up("usage: dict ENTRIES LOOKUPS [trace]");
  const size_t count = strtoul(argv[1], NULL, 10), lookups = strtoul(argv[2], NULL, 10);
  tracing = argc > 3;
  size_t mask = 1;
  while (mask < count + count / 2) mask = 2 * mask + 1;
  arena_bytes = (mask + 1) * sizeof(uint32_t) +
                count * (sizeof(struct entry) + KEY_BYTES + VALUE_WORDS * sizeof(uint64_t));
  arena = mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (arena == MAP_FAILED) give_up("no memory");
  uint32_t* slots = take((mask + 1) * sizeof *slots);
  struct entry* entries = take(count * sizeof *entries);
  char key[KEY_BYTES];
  for (size_t i = 0; i < count; i++) {
    snprintf(key, sizeof key, "key%lu", i);
    insert(slots, mask, entries, i, key);
  }
  uint64_t sum = 0, state = 88172645463325252ull;
  for (size_t i = 0; i < lookups; i++) {
    state ^= state << 13; /* Marsaglia's xorshift64 */
    state ^= state >> 7;
    state ^= state << 17;
    snprintf(key, sizeof key, "key%lu", state % count);
    const uint32_t* slot = find(slots, mask, entries, key, hash_of(key));
    const uint64_t* value = entries[*slot - 1].value;
    note(value, VALUE_WORDS * sizeof *value);
    for (size_t k = 0; k < VALUE_WORDS; k++) sum += value[k];
  }
  if (!tracing) printf("%lu\n", sum);
  return 0;
}
