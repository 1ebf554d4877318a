/* SPDX-License-Identifier: MIT */
/* reader TABLE: answers questions on stdin, one a line, as asking.py writes and shows them. */
#include "view.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const kinds[] = {NULL, "host", "address", "user", "uid", "group", "gid"};

static struct question parse(char *line)
{
    struct question question = {.layout = PACKET_LAYOUT};
    char *value = strchr(line, ' ');

    *value++ = '\0';
    value[strcspn(value, "\n")] = '\0';
    for (uint32_t kind = 1; kind < sizeof kinds / sizeof kinds[0]; kind++)
        if (strcmp(kinds[kind], line) == 0)
            question.kind = kind;
    if (question.kind == QUESTION_USER_BY_ID || question.kind == QUESTION_GROUP_BY_ID) {
        question.id = (uint32_t)strtoul(value, NULL, 10);
    } else if (question.kind == QUESTION_HOST_BY_ADDRESS) {
        question.family = strchr(value, ':') ? AF_INET6 : AF_INET;
        inet_pton((int)question.family, value, question.bytes);
    } else {
        strncpy(question.name, value, sizeof question.name - 1);
    }
    return question;
}

int main(int argc, char **argv)
{
    struct view view = {.path = argv[argc - 1], .owner = geteuid()};
    struct host_answer host;
    struct id_answer id;
    char line[256], text[INET6_ADDRSTRLEN];

    while (fgets(line, sizeof line, stdin) != NULL) {
        const struct question question = parse(line);
        const enum answer_result result = answer_from_view(&view, &question, &host, &id);

        if (result != ANSWER_FOUND) {
            puts(result == ANSWER_UNKNOWN ? "unknown" : "unavailable");
        } else if (question.kind <= QUESTION_HOST_BY_ADDRESS) {
            fputs(host.name, stdout);
            for (uint32_t i = 0; i < host.address_count; i++)
                printf(" %s%%%u/%u",
                       inet_ntop((int)host.addresses[i].family, host.addresses[i].bytes, text, sizeof text),
                       host.addresses[i].scope_id, host.addresses[i].flags);
            puts("");
        } else {
            printf("%s %s %u %u\n", id.name, id.machine, id.host_id, id.inside_id);
        }
    }
    return 0;
}
