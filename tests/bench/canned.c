/* SPDX-License-Identifier: MIT */
/*
 * canned SOCKET     answers every Varlink call at SOCKET with what was on standard input
 *
 * What a call costs whoever asks, where the server does nothing. Prints a line when it listens.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { REPLY_MAX = 65536, CALL_MAX = 16384, BACKLOG = 128 };

int main(int count, char **arguments)
{
    static char reply[REPLY_MAX], call[CALL_MAX];
    const size_t length = fread(reply, 1, sizeof reply, stdin);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (count != 2 || strlen(arguments[1]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, arguments[1]);
    if (bind(server, (const struct sockaddr *)&address, sizeof address) != 0 || listen(server, BACKLOG) != 0)
        return 1;
    puts("listening");
    fflush(stdout);
    for (;;) {
        const int client = accept(server, NULL, NULL);

        for (;;) {
            const ssize_t got = recv(client, call, sizeof call, 0);

            if (got <= 0)
                break;
            if (call[got - 1] == 0 && send(client, reply, length, MSG_NOSIGNAL) != (ssize_t)length)
                break;
        }
        close(client);
    }
}
