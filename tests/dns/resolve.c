/* SPDX-License-Identifier: MIT */
/* resolve NAME [SERVICE]: what getaddrinfo(3) of a static program gives, a line each; exit 1 where it gives nothing. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct addrinfo hints, *found;
    char text[INET6_ADDRSTRLEN];

    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (argc < 2 || getaddrinfo(argv[1], NULL, &hints, &found) != 0)
        return 1;
    for (; found != NULL; found = found->ai_next) {
        const void *address = found->ai_family == AF_INET
                                  ? (const void *)&((const struct sockaddr_in *)(const void *)found->ai_addr)->sin_addr
                                  : (const void *)&((const struct sockaddr_in6 *)(const void *)found->ai_addr)->sin6_addr;
        puts(inet_ntop(found->ai_family, address, text, sizeof text));
    }
    return 0;
}
