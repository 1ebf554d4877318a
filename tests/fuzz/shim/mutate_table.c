/* SPDX-License-Identifier: MIT */
#include "calls.h"
#include "mutate.h"
#include "scene.h"

/* What a word of a record is: that decides what is odd there. */
enum meaning { INDEX_OF, AT_HAND, KEY, ID, LENGTH, FAMILY, FLAGS, NUMBER, TEXT };

struct field {
    uint32_t offset;
    enum meaning meaning;
    uint32_t size;               /* of TEXT */
    uint32_t of;                 /* of INDEX_OF and KEY: the section, by its offset in the slot's header; of TEXT: its
                                    enum name_kind */
};

#define SECTION(name) offsetof(struct slot_header, name)
#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static const struct field machine_fields[] = {
    {offsetof(struct machine_record, inet_count), AT_HAND, 4, 0},
    {offsetof(struct machine_record, inet), NUMBER, 4, 0},
    {offsetof(struct machine_record, more_addresses), INDEX_OF, 4, SECTION(addresses)},
    {offsetof(struct machine_record, inside_first), ID, 4, 0},
    {offsetof(struct machine_record, length), LENGTH, 4, 0},
    {offsetof(struct machine_record, host_first), ID, 4, 0},
    {offsetof(struct machine_record, name), TEXT, 32, NAME_MACHINE},
};
static const struct field detail_fields[] = {
    {offsetof(struct detail_record, more_uid_extents), INDEX_OF, 4, SECTION(extents)},
    {offsetof(struct detail_record, more_gid_extents), INDEX_OF, 4, SECTION(extents)},
    {offsetof(struct detail_record, label), TEXT, 20, NAME_LABEL},
    {offsetof(struct detail_record, alias), TEXT, 68, NAME_ALIAS},
    {offsetof(struct detail_record, name), TEXT, 68, NAME_MACHINE},
};
static const struct field address_fields[] = {
    {offsetof(struct address_record, next), INDEX_OF, 4, SECTION(addresses)},
    {offsetof(struct address_record, family), FAMILY, 4, 0},
    {offsetof(struct address_record, scope_id), NUMBER, 4, 0},
    {offsetof(struct address_record, flags), FLAGS, 4, 0},
    {offsetof(struct address_record, bytes), NUMBER, 4, 0},
};
static const struct field extent_fields[] = {
    {offsetof(struct extent_record, inside_first), ID, 4, 0},
    {offsetof(struct extent_record, length), LENGTH, 4, 0},
    {offsetof(struct extent_record, host_first), ID, 4, 0},
    {offsetof(struct extent_record, next), INDEX_OF, 4, SECTION(extents)},
};
static const struct field range_fields[] = {
    {offsetof(struct range_record, host_first), ID, 4, 0},
    {offsetof(struct range_record, length), LENGTH, 4, 0},
    {offsetof(struct range_record, inside_first), ID, 4, 0},
    {offsetof(struct range_record, machine), INDEX_OF, 4, SECTION(machines)},
};
static const struct field key_fields[] = {{0, KEY, 4, SECTION(machines)}};

static const struct {
    uint32_t section, size;
    const struct field *fields;
    uint32_t count;
} sections[] = {
    {SECTION(machines), sizeof(struct machine_record), machine_fields, COUNT(machine_fields)},
    {SECTION(details), sizeof(struct detail_record), detail_fields, COUNT(detail_fields)},
    {SECTION(addresses), sizeof(struct address_record), address_fields, COUNT(address_fields)},
    {SECTION(extents), sizeof(struct extent_record), extent_fields, COUNT(extent_fields)},
    {SECTION(name_keys), 4, key_fields, COUNT(key_fields)},
    {SECTION(address_keys), 4, key_fields, COUNT(key_fields)},
    {SECTION(uid_ranges), sizeof(struct range_record), range_fields, COUNT(range_fields)},
    {SECTION(gid_ranges), sizeof(struct range_record), range_fields, COUNT(range_fields)},
};

static uint32_t load(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, 4);
    return value;
}

static void save(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, 4);
}

struct picked {
    const struct field *field;
    uint32_t index, record;      /* the record's, and where it is in the slot */
};

/* Somewhere in the slot: a field of a record that is there. False: the section shows none. */
static bool pick_field(const uint8_t *slot, uint32_t size, struct picked *picked)
{
    const uint32_t chosen = pick(COUNT(sections));
    const uint64_t offset = load(slot + sections[chosen].section), count = load(slot + sections[chosen].section + 4);
    const uint64_t fits = offset < size ? (size - offset) / sections[chosen].size : 0;

    if (fits == 0 || count == 0)
        return false;
    picked->index = pick((uint32_t)(count < fits ? count : fits));
    picked->record = (uint32_t)offset + picked->index * sections[chosen].size;
    picked->field = &sections[chosen].fields[pick(sections[chosen].count)];
    return true;
}

/* Of a name that is asked for, or as it is; of another machine or kind, or none. */
static uint32_t odd_key(uint32_t old, uint32_t machines)
{
    static const char *const asked[] = {"web", "db.example.org", "www.example", "db-417", "nosuch"};
    const char *name = asked[pick(COUNT(asked))];
    const uint32_t byte = pick(2) ? old >> 24 : table_hash_name(name, (uint32_t)strlen(name)) >> 24;
    const uint32_t machine = pick(2) ? old >> KEY_MACHINE_AT & (KEY_MACHINES - 1) : odd_number(machines) % KEY_MACHINES;

    return pick(8) == 0 ? 0 : byte << 24 | machine << KEY_MACHINE_AT | (pick(2) ? old % 4 : pick(4));
}

static uint32_t odd_value(const uint8_t *slot, const struct field *field, uint32_t old)
{
    switch (field->meaning) {
    case INDEX_OF:
        return odd_number(load(slot + field->of + 4));
    case AT_HAND:
        return (pick(4) ? pick(5) : pick(256)) | pick(16) << 8 | pick(4) << 16;
    case KEY:
        return odd_key(old, load(slot + field->of + 4));
    case ID:
        return odd_id();
    case LENGTH:
        return pick(2) ? odd_number(65536) : 0u - pick(3000000);
    case FAMILY:
        return pick(2) ? AF_INET + 8 * pick(2) : odd_number(10);
    case FLAGS:
        return pick(4);
    default:
        return odd_number(0xffff);
    }
}

/* The key of a name, and mostly the question for it. What does not end within its field is read on. */
static void ask_for(struct scene *scene, uint8_t *slot, uint32_t size, const struct picked *picked)
{
    const uint32_t from = picked->record + picked->field->offset;
    const char *name = (const char *)slot + from;
    const uint32_t length = (uint32_t)strnlen(name, size - from < MACHINE_NAME_MAX ? size - from : MACHINE_NAME_MAX);
    const uint32_t hash = table_hash_name(name, length);
    const uint64_t offset = load(slot + SECTION(name_keys)), count = load(slot + SECTION(name_keys) + 4);
    const uint64_t at = count == 0 ? size : offset + hash % count * 4;

    if (at + 4 <= size)
        save(slot + at, hash >> 24 << 24 | picked->index % KEY_MACHINES << KEY_MACHINE_AT | picked->field->of);
    if (pick(4) == 0)
        return;
    scene->question_asked = (struct question){.kind = QUESTION_HOST_BY_NAME};
    memcpy(scene->question_asked.name, name, length);
}

static void change_record(struct scene *scene, uint8_t *slot, uint32_t size)
{
    struct picked picked;

    if (!pick_field(slot, size, &picked))
        return;

    const struct field *field = picked.field;
    uint8_t *at = slot + picked.record + field->offset;

    if ((field->meaning == TEXT ? field->size : 4) > size - picked.record - field->offset)
        return;
    if (field->meaning != TEXT) {
        save(at, odd_value(slot, field, load(at)));
        return;
    }
    odd_string((char *)at, field->size);
    if (pick(2))
        ask_for(scene, slot, size, &picked);
}

static void change_section(uint8_t *slot, uint32_t size)
{
    uint8_t *section = slot + sections[pick(COUNT(sections))].section;
    const uint32_t offset = load(section), capacity = load(section + 4);

    switch (pick(5)) {
    case 0:
        save(section, pick(2) ? odd_number(size) : size - pick(120));
        break;
    case 1:
        save(section, offset + pick(9) - 4);
        break;
    case 2:
        save(section + 4, pick(3) ? capacity + pick(9) - 4 : 0);
        break;
    case 3:
        save(section + 4, odd_number(capacity));
        break;
    default:
        save(slot + (pick(2) ? SECTION(uid_ranges) : SECTION(gid_ranges)) + 4, odd_number(capacity));
    }
}

/* Two words or more at once, so that an answer that mixes old and new is neither. */
static void change_move(struct scene *scene, const uint8_t *slot, uint32_t size)
{
    struct move *move = &scene->move;
    struct picked picked;

    move->moment = 1 + pick(pick(2) ? 40 : 400);
    move->kind = pick(3);
    move->count = 1 + pick(STORES_MAX);
    for (uint32_t i = 0; i < move->count; i++) {
        if (!pick_field(slot, size, &picked) || pick(8) == 0) {
            move->stores[i].word = pick(2) ? SLOT_MAX / 4 + pick(4) : pick(sizeof(struct slot_header) / 4);
            move->stores[i].value = odd_number(4);
        } else if (picked.record + picked.field->offset + 4 <= size) {
            const uint32_t at = picked.record + picked.field->offset;

            move->stores[i].word = at / 4;
            move->stores[i].value =
                picked.field->meaning == TEXT ? 0x64636261 : odd_value(slot, picked.field, load(slot + at));
        }
    }
}

static void change_question(struct question *question)
{
    question->layout = pick(8) ? 0 : odd_number(1);
    question->kind = pick(8) ? 1 + pick(6) : odd_number(7);
    question->family = pick(4) ? AF_INET + 8 * pick(2) : odd_number(10);
    question->id = odd_id();
    odd_string(question->name, sizeof question->name);
    if (question->kind == QUESTION_USER_BY_NAME || question->kind == QUESTION_GROUP_BY_NAME) {
        memcpy(question->name, question->kind == QUESTION_USER_BY_NAME ? "vu-" : "vg-", 3);
        if (pick(2))
            memcpy(question->name + strnlen(question->name, 40), "-65536", 7);
    }
}

static void change_scene(struct scene *scene)
{
    static const uint32_t modes[] = {0, 0, 020, 02, 0644, 0111, S_IFREG ^ S_IFDIR, S_IFREG ^ S_IFIFO, S_IFREG ^ S_IFCHR};

    switch (pick(8)) {
    case 0:
        scene->question = pick(QUESTIONS);
        scene->choice = pick(16);
        scene->buffer_size = odd_size();
        scene->misaligned = pick(16);
        break;
    case 1:
        scene->odd_mode = modes[pick(COUNT(modes))];
        break;
    case 2:
        scene->owner = pick(2) ? 0 : odd_id();
        break;
    case 3:
        scene->odd_size = pick(2) ? 0 : pick(2) ? 0u - pick(FILE_MAX + 1) : odd_number(TABLE_SIZE_MAX - FILE_MAX);
        break;
    case 4:
        scene->failing_call = pick(2) ? 0 : 1 + pick(40);
        scene->failing_errno = pick(error_count);
        break;
    case 5:
        scene->turn = pick(32);
        scene->shows = pick(SHOWINGS);
        break;
    case 6: {
        const uint32_t word = pick(HEADER_WORDS);

        /* Offsets and sizes by pages, by bytes, and by so much that sums wrap. */
        scene->header[word] = pick(3) == 0 ? 0 : pick(2) ? odd_number(4) : TABLE_PAGE * (pick(9) - 4);
        if (word == offsetof(struct table_header, file_size) / 4 && pick(2))
            scene->odd_size = scene->header[word];
        break;
    }
    default:
        change_question(&scene->question_asked);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    _Alignas(8) static uint8_t slot[SLOT_MAX];
    struct scene scene;

    pick_from(seed);
    if (size < sizeof scene + sizeof(struct slot_header) || size - sizeof scene > SLOT_MAX || pick(4) == 0)
        return LLVMFuzzerMutate(data, size, max_size);

    uint32_t slot_size = (uint32_t)(size - sizeof scene);

    memcpy(&scene, data, sizeof scene);
    memset(slot, 0, sizeof slot);
    memcpy(slot, data + sizeof scene, slot_size);
    for (uint32_t times = 1 + pick(4); times > 0; times--)
        switch (pick(9)) {
        case 0:
        case 1:
            change_scene(&scene);
            break;
        case 2:
            change_section(slot, slot_size);
            break;
        case 3:
            change_move(&scene, slot, slot_size);
            break;
        case 4:
            slot_size = pick(4) == 0 ? pick(100) : slot_size - pick(2 * 120);
            slot_size = slot_size > SLOT_MAX ? SLOT_MAX : slot_size;
            break;
        default:
            change_record(&scene, slot, slot_size);
        }
    if (sizeof scene + slot_size > max_size)
        slot_size = (uint32_t)(max_size - sizeof scene);
    memcpy(data, &scene, sizeof scene);
    memcpy(data + sizeof scene, slot, slot_size);
    return sizeof scene + slot_size;
}
