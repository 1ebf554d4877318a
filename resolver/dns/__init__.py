# SPDX-License-Identifier: MIT
"""Names of machines for those whom NSS does not reach: a DNS server that answers from the table.

    answers    question in, records out
    wire       queries and responses as bytes (RFC 1035 section 4, RFC 6891)
    responder  packets in, packets out, and what is kept of them
    limiter    how much a source may have by UDP
    udp, tcp   sockets; forward: what is another server's
    server     all of these, as options say
    publish    a process of its own: machines in the DNS server of a site
"""

DEFAULT_ZONE = "machines.internal."
"""ICANN has set `internal` aside for private use (2024)."""
