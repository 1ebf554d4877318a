# SPDX-License-Identifier: MIT
"""mymachines-dns-publish: this host's machines in the DNS server that a site runs already, by DNS UPDATE (RFC 2136).

    records.py    pure: which records there should be, how they differ from those there are, and their digest
    messages.py   pure: updates with their prerequisites, as messages
    server.py     asks the server: updates, a name's records, a zone transfer; all signed (TSIG, RFC 8945)
    publisher.py  keeps the server in step: batches, retries, reconciles, withdraws
    machines.py   follows the daemon's machines
    keys.py       the key that updates are signed with

**One owner a host name.** A host publishes below one name of its own (host1.machines.example.). Beside the machines'
records lies one TXT record of ours, _mymachines below that name, which tells who owns the name and the digest of all
that is published there. Each update demands that this record is what we know it to be (a prerequisite), and replaces it
by the next one, in the same atomic step. So another host of that name, a server restored from an old copy, or an update
whose answer was lost is noticed before anything is overwritten; and a restart that finds the digest it expects need not
read the zone.
"""
