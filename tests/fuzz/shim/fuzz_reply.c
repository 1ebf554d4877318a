/* SPDX-License-Identifier: MIT */
/*
 * The daemon's client, fuzzed: no table, and at nss.sock somebody who replies with the input, early, late or never. The
 * answer is compared with the judge's, and goes through an entry point as well.
 */
#include "calls.h"
#include "scene.h"

const int errors[] = {EMFILE, ENFILE, ENOMEM, EACCES, EAGAIN, ECONNREFUSED, ENOENT, EPIPE, ECONNRESET, EINVAL};
const uint32_t error_count = sizeof errors / sizeof errors[0];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_daemon(const struct talk *talk, const uint8_t *reply, size_t size)
{
    world_begin();
    world.listens = true;
    world.peer = talk->peer;
    world.interruptions = talk->interruptions % 1000;
    world.interval = talk->interval % 300;
    world.spurious = talk->spurious % 4;
    world.lost = talk->lost & (MSG_TRUNC | MSG_CTRUNC);
    world.mute = talk->mute % 2;
    world.failing_call = talk->failing_call;
    world.failing_errno = errors[talk->failing_errno % error_count];
    world.reply_size = size < REPLY_MAX ? (uint32_t)size : REPLY_MAX;
    memcpy(world_reply, reply, world.reply_size);
}

static void judge(const struct talk *talk, const struct question *question, struct verdict *verdict)
{
    const uint64_t patience = 250;

    if (judge_question(question, verdict))
        return;
    verdict->result = ANSWER_UNAVAILABLE;
    if (world.peer == 0 && world.lost == 0 && !world.mute &&
        (talk->interruptions % 1000) * (uint64_t)(talk->interval % 300) < patience)
        judge_reply(world_reply, world.reply_size, question, verdict);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct verdict what, verdict;
    struct talk talk;

    if (size < sizeof talk)
        return 0;
    memcpy(&talk, data, sizeof talk);
    questions[QUESTIONS - 1] = talk.question_asked;
    questions[QUESTIONS - 1].kind = 1 + (talk.question_asked.kind - 1) % 6;  /* what entry points ask */
    for (int i = 0; i < QUESTIONS; i++)
        questions[i].layout = PACKET_LAYOUT;

    const struct question *question = &questions[talk.question % QUESTIONS];

    make_daemon(&talk, data + sizeof talk, size - sizeof talk);
    judge(&talk, question, &verdict);

    const uint64_t began = world.milliseconds;

    ask(question, &what);
    check_bounds(&what, question);
    if (world.milliseconds - began > 250)
        wrong("%llu ms are waited for", (unsigned long long)(world.milliseconds - began));
    if (what.result != ANSWER_UNAVAILABLE || !world.failed)
        compare(&verdict, &what, question);
    if (world.questions > 1 || (world.questions == 1 && memcmp(world.question, question, sizeof *question) != 0))
        wrong("another question is asked");
    make_daemon(&talk, data + sizeof talk, size - sizeof talk);
    call_entry_point(question, talk.choice, talk.buffer_size, talk.misaligned, talk.failing_call != 0 ? NULL : &verdict);
    return 0;
}
