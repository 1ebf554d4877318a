/* SPDX-License-Identifier: MIT */
#include "calls.h"
#include "mutate.h"
#include "scene.h"

static void change_talk(struct talk *talk)
{
    switch (pick(8)) {
    case 0:
        talk->choice = pick(16);
        talk->buffer_size = odd_size();
        talk->misaligned = pick(16);
        break;
    case 1:
        talk->failing_call = pick(2) ? 0 : 1 + pick(10);
        talk->failing_errno = pick(error_count);
        break;
    case 2:
        talk->peer = pick(2) ? 0 : odd_id();
        break;
    case 3:
        talk->interruptions = pick(40);
        talk->interval = pick(30);
        break;
    case 4:
        talk->spurious = pick(4);
        break;
    case 5:
        talk->lost = pick(2) ? 0 : pick(2) ? MSG_TRUNC : MSG_CTRUNC;
        break;
    case 6:
        talk->mute = pick(4) == 0;
        break;
    default:
        talk->question = QUESTIONS - 1;
        talk->question_asked.kind = 1 + pick(6);
        talk->question_asked.id = odd_id();
        talk->question_asked.family = AF_INET + 8 * pick(2);
        odd_string(talk->question_asked.name, sizeof talk->question_asked.name);
    }
}

static void change_host(struct host_answer *host, uint32_t *size)
{
    struct answer_address *address = &host->addresses[pick(pick(2) ? 4 : MACHINE_ADDRESSES_MAX)];

    switch (pick(5)) {
    case 0:
        odd_string(host->name, sizeof host->name);
        break;
    case 1:
        host->address_count = odd_number(MACHINE_ADDRESSES_MAX);
        break;
    case 2: /* more or fewer, and of the size that they say */
        host->address_count = pick(pick(2) ? 4 : MACHINE_ADDRESSES_MAX + 4);
        *size = (uint32_t)offsetof(struct host_answer, addresses) + 28 * host->address_count;
        for (uint32_t i = 0; i < host->address_count && i < MACHINE_ADDRESSES_MAX; i++)
            if (host->addresses[i].family != AF_INET6)
                host->addresses[i].family = AF_INET;
        break;
    case 3:
        address->family = pick(2) ? AF_INET + 8 * pick(2) : odd_number(10);
        break;
    default:
        address->flags = pick(4);
        address->bytes[pick(16)] = (uint8_t)pick(256);
    }
}

static void change_id(struct id_answer *id, const struct question *question)
{
    switch (pick(6)) {
    case 0:
        odd_string(id->name, sizeof id->name);
        break;
    case 1:
        odd_string(id->machine, sizeof id->machine);
        break;
    case 2:
        id->host_id = odd_id();
        break;
    case 3:
        id->inside_id = odd_id();
        break;
    case 4:
        id->host_id = question->id;
        break;
    default:
        memcpy(id->name, question->name, sizeof id->name);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    static union {
        uint8_t bytes[REPLY_MAX];
        struct {
            struct reply_header header;
            union {
                struct host_answer host;
                struct id_answer id;
            } body;
        } packet;
    } reply;
    struct talk talk;

    pick_from(seed);
    if (size < sizeof talk || size - sizeof talk > REPLY_MAX || pick(4) == 0)
        return LLVMFuzzerMutate(data, size, max_size);

    uint32_t length = (uint32_t)(size - sizeof talk);

    memcpy(&talk, data, sizeof talk);
    memset(&reply, 0, sizeof reply);
    memcpy(reply.bytes, data + sizeof talk, length);

    const struct question *question =
        talk.question % QUESTIONS == QUESTIONS - 1 ? &talk.question_asked : &questions[talk.question % QUESTIONS];

    for (uint32_t times = 1 + pick(3); times > 0; times--)
        switch (pick(8)) {
        case 0:
            change_talk(&talk);
            break;
        case 1:
            reply.packet.header.layout = pick(4) ? PACKET_LAYOUT : odd_number(1);
            reply.packet.header.kind = pick(4) ? question->kind : odd_number(6);
            reply.packet.header.result = pick(4) ? pick(3) : odd_number(3);
            break;
        case 2:
            length = pick(3) ? length + pick(5) - 2 : pick(REPLY_MAX);
            length = length > REPLY_MAX ? 0 : length;
            break;
        case 3:
            length = pick(2) ? sizeof reply.packet.header : sizeof reply.packet.header + sizeof(struct id_answer);
            break;
        default:
            if (question->kind <= QUESTION_HOST_BY_ADDRESS) {
                uint32_t rest = length - (uint32_t)sizeof reply.packet.header;

                change_host(&reply.packet.body.host, &rest);
                length = rest + (uint32_t)sizeof reply.packet.header;
            } else {
                change_id(&reply.packet.body.id, question);
            }
        }
    if (sizeof talk + length > max_size)
        length = (uint32_t)(max_size - sizeof talk);
    memcpy(data, &talk, sizeof talk);
    memcpy(data + sizeof talk, reply.bytes, length);
    return sizeof talk + length;
}
