/* SPDX-License-Identifier: MIT */
/*
 * The table's reader, fuzzed. Each input is a file, whatever happens to it, and a move of its writer's between two loads;
 * all questions are put to it, one goes through an entry point as well, and each answer is compared with the judge's.
 */
#include "calls.h"
#include "scene.h"
#include "slot.h"

#include <stdlib.h>

const int errors[] = {EMFILE, ENFILE, ENOMEM, EACCES, EPERM, ENOENT, EINTR, ELOOP};
const uint32_t error_count = sizeof errors / sizeof errors[0];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_file(const struct scene *scene, const uint8_t *slot, uint32_t slot_size)
{
    uint32_t header[HEADER_WORDS];
    struct table_header whole = {.magic = TABLE_MAGIC, .layout = TABLE_LAYOUT, .file_size = FILE_MAX,
                                 .slot_offset = {TABLE_PAGE, TABLE_PAGE + SLOT_MAX}, .slot_size = slot_size};

    memcpy(header, &whole, sizeof header);
    for (int i = 0; i < HEADER_WORDS; i++)
        header[i] += scene->header[i];
    memset(world_file, 0, sizeof world_file);
    memcpy(world_file, header, sizeof header);
    for (int i = 0; i < TABLE_SLOTS; i++)
        memcpy(world_file + TABLE_PAGE + i * SLOT_MAX, slot, slot_size);
    world.slot_size = slot_size;
    world.size = (int64_t)FILE_MAX + (int32_t)scene->odd_size;
    world.exists = true;
    world.mode = (S_IFREG | 0644) ^ (scene->odd_mode & 0177777);
    world.owner = scene->owner;
}

/* What the path shows: a file's bytes, and what is known of it. */
struct sight {
    const uint8_t *file;
    uint32_t shows;
    uid_t owner;
};

static _Alignas(8) uint8_t file_before_turn[FILE_MAX];
static struct sight before_turn;

/* A second passes, and the path shows something else. */
static void turn(uint32_t shows)
{
    memcpy(file_before_turn, world_file, sizeof file_before_turn);
    before_turn = (struct sight){file_before_turn, SHOWS_FILE, world.owner};
    world.shows = shows;
    world.milliseconds += 1000;
    if (shows == SHOWS_ANOTHER) {
        world.inode++;
        memset(world_file + TABLE_PAGE, 0, TABLE_SLOTS * SLOT_MAX);
    } else if (shows == SHOWS_STRANGERS) {
        world.owner++;
    }
}

/* By the grammar. A move changes counters and flags alone, so the rest is what it was when the file was mapped. */
static bool is_table(const struct sight *sight)
{
    const struct table_header *header = (const void *)sight->file;

    if (sight->shows == SHOWS_NOTHING || !S_ISREG(world.mode) || sight->owner != 0 || (world.mode & 0022) != 0)
        return false;
    if (memcmp(header->magic, "mymachin", 8) != 0 || world.size != (int64_t)header->file_size)
        return false;
    for (int i = 0; i < TABLE_SLOTS; i++)
        if (header->slot_offset[i] < 4096 || header->slot_offset[i] % 4096 != 0 ||
            (uint64_t)header->slot_offset[i] + header->slot_size > header->file_size)
            return false;
    return header->layout == 2 && header->retired == 0 && header->begun - header->done < 2;
}

static void judge(const struct sight *sight, const struct question *question, struct verdict *verdict)
{
    const struct table_header *header = (const void *)sight->file;

    if (judge_question(question, verdict))
        return;
    if (is_table(sight) && world.size <= FILE_MAX)
        judge_slot(sight->file + header->slot_offset[header->done % 2], header->slot_size, question, verdict);
    else
        verdict->result = ANSWER_UNAVAILABLE;
}

/* What the answer may be, since the question began with `moved_before`. */
static void check(const struct question *question, const struct verdict *what, bool moved_before)
{
    static struct verdict now, before;
    const bool moved = world.moved && !moved_before;

    check_bounds(what, question);
    if (moved && world.move.kind == MOVE_HOSTILE)
        return; /* whatever it finds while somebody changes what nobody may: it must only not crash */
    judge(&(struct sight){world_file, world.shows, world.owner}, question, &now);
    if (what->result == ANSWER_UNAVAILABLE && (world.failed || moved || world.shows == SHOWS_REFUSAL))
        return;
    if (moved) {
        judge(&(struct sight){world_before, world.shows, world.owner}, question, &before);
        if (same(&before, what, question))
            return;
    }
    if (world.missed) {
        judge(&before_turn, question, &before);
        if (world.moved || same(&before, what, question))
            return;
    }
    compare(&now, what, question);
}

static void list_names(const uint8_t *bytes, uint32_t size)
{
    static struct table_name listed[4];
    uint32_t *slot = malloc(size);       /* to the byte */
    uint32_t count;

    memcpy(slot, bytes, size);
    if (slot_list_names(&(struct slot){(const uint8_t *)slot, size}, listed, 4, &count) == ANSWER_FOUND)
        for (uint32_t i = 0; i < count && i < 4; i++)
            if (strnlen(listed[i].name, 68) > 64)
                wrong("a name without end is listed");
    free(slot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct verdict what;
    struct scene scene;
    bool moved_before;

    if (size < sizeof scene)
        return 0;
    memcpy(&scene, data, sizeof scene);
    size -= sizeof scene;

    const uint32_t slot_size = size < SLOT_MAX ? (uint32_t)size : SLOT_MAX;

    world_begin();
    make_file(&scene, data + sizeof scene, slot_size);
    world.failing_call = scene.failing_call;
    world.failing_errno = errors[scene.failing_errno % error_count];
    world.move = scene.move;
    world.move.kind %= 3;
    questions[QUESTIONS - 1] = scene.question_asked;
    for (uint32_t i = 0; i < QUESTIONS; i++) {
        questions[i].layout = PACKET_LAYOUT + (i == QUESTIONS - 1 ? scene.question_asked.layout : 0);
        if (i == scene.turn % (2 * QUESTIONS))
            turn(scene.shows % SHOWINGS);
        moved_before = world.moved;
        ask(&questions[i], &what);
        check(&questions[i], &what, moved_before);
    }

    const struct question *question = &questions[scene.question % QUESTIONS];

    if (question->layout == PACKET_LAYOUT && question->kind >= 1 && question->kind <= 6) {
        /* What it says is known, but where a move or a failure may come within the call. */
        const bool open = (!world.moved && scene.move.moment != 0) || scene.failing_call != 0;

        judge(&(struct sight){world_file, world.shows, world.owner}, question, &what);
        for (uint32_t size = scene.buffer_size, i = 0; i < 2; i++, size %= 32) /* the second: too small, mostly */
            call_entry_point(question, scene.choice, size, scene.misaligned,
                             open || world.shows == SHOWS_REFUSAL ? NULL : &what);
    }
    list_names(data + sizeof scene, slot_size);
    return 0;
}
