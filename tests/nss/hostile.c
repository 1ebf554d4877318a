/* SPDX-License-Identifier: MIT */
/*
 * hostile TABLE ROUNDS SEED: damages the first slot of a table in ROUNDS ways and asks everything of each. Compiled with
 * -fsanitize=address,undefined; the slot lies in memory of just its size, so one byte too far is seen.
 */
#include "../../nss_module/answer.c"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state;

static uint32_t pick(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static uint32_t odd_number(uint32_t size)
{
    const uint32_t numbers[] = {0, 1, 2, 3, 4, 0xffffffff, 0xfffffffe, 0x7fffffff, 0x80000000, size, size - 1, size - 4};

    switch (pick(3)) {
    case 0:
        return numbers[pick(sizeof numbers / sizeof numbers[0])];
    case 1:
        return pick(64);
    default:
        return pick(0x7fffffff) * 2 + pick(2);
    }
}

static void damage(uint8_t *slot, uint32_t size)
{
    for (uint32_t times = 1 + pick(6); times > 0; times--) {
        const uint32_t words = pick(2) ? sizeof(struct slot_header) / 4 : size / 4;
        const uint32_t number = odd_number(size);

        memcpy(slot + 4 * pick(words), &number, 4);
        if (pick(8) == 0) {
            const uint32_t at = pick(size);

            memset(slot + at, 'x', pick(size - at < 200 ? size - at : 200));
        }
    }
}

static void check(const struct question *question, enum answer_result result, const struct host_answer *host,
                  const struct id_answer *id)
{
    if (result > ANSWER_UNAVAILABLE)
        abort();
    if (result != ANSWER_FOUND)
        return;
    if (question->kind <= QUESTION_HOST_BY_ADDRESS) {
        if (strlen(host->name) > MACHINE_NAME_MAX || host->address_count > MACHINE_ADDRESSES_MAX)
            abort();
    } else if (strlen(id->name) > USER_NAME_MAX || strlen(id->machine) > MACHINE_NAME_MAX) {
        abort();
    }
}

static struct question questions[] = {
    {.kind = QUESTION_HOST_BY_NAME, .name = "web"},
    {.kind = QUESTION_HOST_BY_NAME, .name = "db.example.org."},
    {.kind = QUESTION_HOST_BY_NAME, .name = "www.example"},
    {.kind = QUESTION_HOST_BY_NAME, .name = "nosuch"},
    {.kind = QUESTION_HOST_BY_ADDRESS, .family = AF_INET, .bytes = {10, 0, 0, 2}},
    {.kind = QUESTION_HOST_BY_ADDRESS, .family = AF_INET6, .bytes = {0xfd, [15] = 2}},
    {.kind = QUESTION_USER_BY_NAME, .name = "vu-web-0"},
    {.kind = QUESTION_USER_BY_NAME, .name = "vu-db-417-5"},
    {.kind = QUESTION_GROUP_BY_NAME, .name = "vg-web-0"},
    {.kind = QUESTION_USER_BY_ID, .id = 1048576},
    {.kind = QUESTION_USER_BY_ID, .id = 3145728},
    {.kind = QUESTION_USER_BY_ID, .id = 4294967294},
    {.kind = QUESTION_USER_BY_ID, .id = 65536},
    {.kind = QUESTION_GROUP_BY_ID, .id = 2097152},
};

int main(int argc, char **argv)
{
    FILE *file = argc == 4 ? fopen(argv[1], "rb") : NULL;
    struct table_header header;
    unsigned found = 0;

    if (file == NULL || fread(&header, sizeof header, 1, file) != 1)
        return 2;

    uint8_t *whole = malloc(header.slot_size), *slot = malloc(header.slot_size);

    if (fseek(file, header.slot_offset[0], SEEK_SET) != 0 || fread(whole, header.slot_size, 1, file) != 1)
        return 2;
    fclose(file);
    state = strtoull(argv[3], NULL, 10);
    for (long rounds = atol(argv[2]); rounds > 0; rounds--) {
        memcpy(slot, whole, header.slot_size);
        damage(slot, header.slot_size);
        for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
            struct host_answer host;
            struct id_answer id;
            struct query query;

            questions[i].layout = TABLE_LAYOUT;
            if (prepare(&questions[i], &query) != ANSWER_FOUND)
                abort();

            const enum answer_result result =
                answer_from_slot(&(struct slot){slot, header.slot_size}, &query, &host, &id);

            check(&questions[i], result, &host, &id);
            found += result == ANSWER_FOUND;
        }
    }
    printf("%u\n", found);
    free(whole);
    free(slot);
    return 0;
}
