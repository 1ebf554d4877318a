/* SPDX-License-Identifier: MIT */
/* The two files of the shim that keep something between look-ups, and what forgets it: each run is a process's first. */
#include "look_up.c"
#include "ask.c"

void shim_forget(void)
{
    table_view.map = NULL;
    table_view.checked = 0;
    memset(table_view.maps, 0, sizeof table_view.maps);
    mute_since = 0;
}

/* As exchange() in view.c does it in another thread. */
void shim_let_go(void)
{
    struct map *map = table_view.map;

    if (map == NULL)
        return;
    table_view.map = NULL;
    mmap((void *)map->header, map->size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}
