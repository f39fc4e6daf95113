/* libamdhip64.so.7 of a machine that does not exist. Names and numbers: the HIP runtime API
   reference. Which devices there are follows ROCclr: ROCR_VISIBLE_DEVICES filters first, and
   HIP_VISIBLE_DEVICES, or else CUDA_VISIBLE_DEVICES, counts in what that leaves. */

#define VENDOR "amd"
#include "fleet.h"

#define INVALID_VALUE 1
#define OUT_OF_MEMORY 2
#define NO_DEVICE 100
#define INVALID_DEVICE 101
#define TO_HOST 2

static struct gpu *visible[GPUS];
static int visible_count;
static struct gpu *current;

static struct gpu *by_number(struct gpu **all, int count, const char *entry)
{
    char *end;
    long number = strtol(entry, &end, 10);
    return *entry && !*end && number >= 0 && number < count ? all[number] : NULL;
}

static struct gpu *by_uuid(struct gpu **all, int count, const char *entry)
{
    int i;
    for (i = 0; i < count; i++)
        if (!strncasecmp(entry, "GPU-", 4) && !strcasecmp(all[i]->uuid, entry))
            return all[i];
    return NULL;
}

/* Keep what the mask names, up to the first entry that names nothing. */
static void filter(const char *given)
{
    struct gpu *all[GPUS];
    char mask[4096], *entry, *rest = mask;
    int count = visible_count;
    if (!given)
        return;
    memcpy(all, visible, sizeof all);
    visible_count = 0;
    snprintf(mask, sizeof mask, "%s", given);
    while ((entry = strsep(&rest, ",")) && visible_count < GPUS) {
        struct gpu *found = by_number(all, count, entry);
        found = found ? found : by_uuid(all, count, entry);
        if (!found)
            return;
        visible[visible_count++] = found;
    }
}

int hipInit(unsigned flags)
{
    int status = read_fleet("libamdhip64.so.7"), i, ordinal;
    const char *mask = getenv("HIP_VISIBLE_DEVICES");
    (void)flags;
    if (status)
        return status;
    visible_count = 0;
    for (ordinal = 0; ordinal < GPUS; ordinal++)
        for (i = 0; i < gpu_count; i++)
            if (gpus[i].ordinal == ordinal && gpus[i].opens)
                visible[visible_count++] = &gpus[i];
    filter(getenv("ROCR_VISIBLE_DEVICES"));
    filter(mask ? mask : getenv("CUDA_VISIBLE_DEVICES"));
    current = visible_count ? visible[0] : NULL;
    return visible_count ? 0 : NO_DEVICE;
}

int hipGetDeviceCount(int *count)
{
    *count = visible_count;
    return visible_count ? 0 : NO_DEVICE;
}

int hipDeviceGetPCIBusId(char *out, int size, int device)
{
    if (device < 0 || device >= visible_count)
        return INVALID_DEVICE;
    snprintf(out, (size_t)size, "%s", visible[device]->pci);
    return 0;
}

int hipSetDevice(int device)
{
    if (device < 0 || device >= visible_count || in_state(visible[device], "lost"))
        return INVALID_DEVICE;
    current = visible[device];
    return 0;
}

/* The memory of a GPU is the process's own. */
int hipMalloc(void **pointer, size_t bytes)
{
    if (!current)
        return NO_DEVICE;
    if (in_state(current, "full"))
        return OUT_OF_MEMORY;
    *pointer = malloc(bytes);
    return 0;
}

int hipFree(void *pointer)
{
    free(pointer);
    return 0;
}

int hipMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    memcpy(to, from, bytes);
    if (kind == TO_HOST && in_state(current, "corrupt"))
        ((unsigned char *)to)[bytes / 2] ^= 0x10;
    return 0;
}

/* A kernel: where that fails, ROCm's runtime says so and aborts the process. */
int hipMemset(void *pointer, int byte, size_t bytes)
{
    if (in_state(current, "sick")) {
        fprintf(stderr,
                "Memory access fault by GPU node-%d (Agent handle: 0x55d0c8a3b2a0) on address "
                "0x7f5a1c200000. Reason: Unknown.\n",
                current->node);
        abort();
    }
    memset(pointer, byte, bytes);
    return 0;
}

int hipDeviceSynchronize(void)
{
    if (in_state(current, "hung"))
        hang();
    return 0;
}

int hipDeviceReset(void) { return 0; }
