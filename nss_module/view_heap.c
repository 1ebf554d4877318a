/* SPDX-License-Identifier: MIT */
/* Views for Python. Not part of the shim, which allocates nothing. */
#include "view.h"

#include <stdlib.h>
#include <string.h>

struct view *view_new(const char *path, uint32_t owner)
{
    struct view *view = calloc(1, sizeof *view);
    char *copy = strdup(path);

    if (view == NULL || copy == NULL) {
        free(view);
        free(copy);
        return NULL;
    }
    view->path = copy;
    view->owner = owner;
    return view;
}

void view_free(struct view *view)
{
    if (view == NULL)
        return;
    if (view->map != NULL)
        unmap(view->map);
    free((char *)view->path);
    free(view);
}
