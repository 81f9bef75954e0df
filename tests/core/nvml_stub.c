/* NVIDIA's management library as a machine with the GPUs of STUB_GPUS would have it: what is asked here, and no more. */
#include <stdlib.h>
#include <string.h>

static char names[8][96];
static unsigned int count;

int nvmlInitWithFlags(unsigned int flags) {
    const char *given = getenv("STUB_GPUS");
    (void)flags;
    count = 0;
    while (given && *given && count < 8) {
        size_t length = strcspn(given, ",");
        memcpy(names[count], given, length);
        names[count++][length] = 0;
        given += length + (given[length] == ',');
    }
    return 0;
}

int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetCount_v2(unsigned int *found) {
    *found = count;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    *device = names[index];
    return index < count ? 0 : 2;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    strncpy(uuid, device, length);
    return 0;
}
