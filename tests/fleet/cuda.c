/* libcuda.so.1 of a machine that does not exist. Names and numbers: cuda.h, as the CUDA driver API
   reference has it. Which devices there are follows the CUDA C++ Programming Guide, "CUDA
   Environment Variables" (CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER), and the MIG User Guide (a
   process can use one instance). */

#define VENDOR "nvidia"
#include "fleet.h"

#define INVALID_VALUE 1
#define OUT_OF_MEMORY 2
#define NOT_INITIALIZED 3
#define DEVICE_UNAVAILABLE 46
#define NO_DEVICE 100
#define INVALID_DEVICE 101
#define INVALID_CONTEXT 201
#define ECC_UNCORRECTABLE 214

struct device {
    struct gpu *gpu;
    struct instance *mig;
};

static struct device visible[GPUS];
static int visible_count;
static pid_t owner; /* A forked copy can't use what its parent initialized. */
static struct device *current;

static struct gpu *by_number(int number)
{
    const char *order = getenv("CUDA_DEVICE_ORDER");
    int in_pci_order = order && !strcmp(order, "PCI_BUS_ID"), i;
    for (i = 0; i < gpu_count; i++)
        if ((in_pci_order ? gpus[i].ordinal : gpus[i].fastest) == number)
            return &gpus[i];
    return NULL;
}

static int add(struct gpu *gpu, struct instance *mig)
{
    int i;
    if (gpu->in_mig_mode && !mig)
        mig = gpu->instances ? &gpu->mig[0] : NULL;
    if (gpu->in_mig_mode && !mig)
        return 1;
    for (i = 0; i < visible_count; i++) {
        if (visible[i].gpu == gpu && visible[i].mig == mig) {
            visible_count = 0; /* an entry that is there twice: none */
            return 0;
        }
        if (visible[i].mig && mig)
            return 1;
    }
    visible[visible_count].gpu = gpu;
    visible[visible_count++].mig = mig;
    return 1;
}

/* An entry of the mask: a number, or the beginning of a UUID; whether to go on. */
static int add_entry(const char *entry)
{
    char *end;
    long number = strtol(entry, &end, 10);
    int i, j;
    if (*entry && !*end) {
        struct gpu *gpu = number < 0 ? NULL : by_number((int)number);
        return gpu && add(gpu, NULL);
    }
    for (i = 0; i < gpu_count; i++) {
        if (!strncmp(entry, "GPU-", 4) && !strncmp(gpus[i].uuid, entry, strlen(entry)))
            return add(&gpus[i], NULL);
        for (j = 0; j < gpus[i].instances; j++)
            if (!strcmp(gpus[i].mig[j].uuid, entry))
                return add(&gpus[i], &gpus[i].mig[j]);
    }
    return 0;
}

static void apply_mask(void)
{
    const char *given = getenv("CUDA_VISIBLE_DEVICES");
    char mask[4096], *entry, *rest = mask;
    int i;
    visible_count = 0;
    if (!given) {
        for (i = 0; by_number(i); i++)
            add(by_number(i), NULL);
        return;
    }
    snprintf(mask, sizeof mask, "%s", given);
    while ((entry = strsep(&rest, ",")) && add_entry(entry))
        ;
}

int cuInit(unsigned flags)
{
    int status;
    (void)flags;
    if (owner)
        return owner == getpid() ? 0 : NOT_INITIALIZED;
    status = read_fleet("libcuda.so.1");
    if (status)
        return status;
    apply_mask();
    if (!visible_count)
        return NO_DEVICE;
    owner = getpid();
    return 0;
}

static int usable(int device)
{
    if (owner != getpid())
        return NOT_INITIALIZED;
    return device < 0 || device >= visible_count ? INVALID_DEVICE : 0;
}

int cuDriverGetVersion(int *version)
{
    *version = 13000;
    return 0;
}

int cuDeviceGetCount(int *count)
{
    *count = visible_count;
    return usable(0);
}

int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return usable(ordinal);
}

int cuDeviceGetName(char *out, int size, int device)
{
    int status = usable(device);
    if (!status)
        snprintf(out, (size_t)size, "%s",
                 visible[device].mig ? visible[device].mig->name : visible[device].gpu->name);
    return status;
}

int cuDeviceGetPCIBusId(char *out, int size, int device)
{
    int status = usable(device);
    if (!status)
        snprintf(out, (size_t)size, "%s", visible[device].gpu->pci);
    return status;
}

int cuDeviceGetUuid_v2(unsigned char *out, int device)
{
    int status = usable(device), i;
    const char *at;
    if (status)
        return status;
    at = (visible[device].mig ? visible[device].mig->uuid : visible[device].gpu->uuid) + 4;
    for (i = 0; i < 16; i++, at += 2) {
        unsigned byte = 0;
        while (*at == '-')
            at++;
        sscanf(at, "%2x", &byte);
        out[i] = (unsigned char)byte;
    }
    return 0;
}

int cuDeviceGetUuid(unsigned char *out, int device) { return cuDeviceGetUuid_v2(out, device); }

int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    int status = usable(device);
    if (!status)
        *bytes = visible[device].mig ? visible[device].mig->memory : visible[device].gpu->memory;
    return status;
}

int cuCtxCreate_v2(void **context, unsigned flags, int device)
{
    int status = usable(device);
    (void)flags;
    if (status)
        return status;
    if (in_state(visible[device].gpu, "sick") || in_state(visible[device].gpu, "lost"))
        return ECC_UNCORRECTABLE;
    if (in_state(visible[device].gpu, "busy"))
        return DEVICE_UNAVAILABLE;
    current = &visible[device];
    *context = current;
    return 0;
}

int cuCtxDestroy_v2(void *context)
{
    (void)context;
    current = NULL;
    return 0;
}

int cuCtxSynchronize(void)
{
    if (!current)
        return INVALID_CONTEXT;
    if (in_state(current->gpu, "hung"))
        hang();
    return 0;
}

/* The memory of a GPU is the process's own. */
int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes)
{
    if (!current)
        return INVALID_CONTEXT;
    if (!bytes)
        return INVALID_VALUE;
    if (in_state(current->gpu, "full"))
        return OUT_OF_MEMORY;
    *pointer = (unsigned long long)(size_t)malloc(bytes);
    return 0;
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    if (!current)
        return INVALID_CONTEXT;
    read_fleet("libcuda.so.1");
    *total = current->mig ? current->mig->memory : current->gpu->memory;
    *free_bytes = in_state(current->gpu, "full") ? 0 : *total;
    return 0;
}

static void *memory(unsigned long long pointer) { return (void *)(size_t)pointer; }

int cuMemcpyHtoD_v2(unsigned long long to, const void *from, size_t bytes)
{
    if (!current)
        return INVALID_CONTEXT;
    memcpy(memory(to), from, bytes);
    return 0;
}

int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t bytes)
{
    if (!current)
        return INVALID_CONTEXT;
    memcpy(to, memory(from), bytes);
    if (in_state(current->gpu, "corrupt"))
        ((unsigned char *)to)[bytes / 2] ^= 0x10;
    return 0;
}

int cuMemsetD8_v2(unsigned long long pointer, unsigned char byte, size_t count)
{
    if (!current)
        return INVALID_CONTEXT;
    memset(memory(pointer), byte, count);
    return 0;
}

int cuMemFree_v2(unsigned long long pointer)
{
    if (!current)
        return INVALID_CONTEXT;
    free(memory(pointer));
    return 0;
}

int cuGetErrorName(int status, const char **name)
{
    switch (status) {
    case 0: *name = "CUDA_SUCCESS"; break;
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NOT_INITIALIZED: *name = "CUDA_ERROR_NOT_INITIALIZED"; break;
    case DEVICE_UNAVAILABLE: *name = "CUDA_ERROR_DEVICE_UNAVAILABLE"; break;
    case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
    case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
    case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case ECC_UNCORRECTABLE: *name = "CUDA_ERROR_ECC_UNCORRECTABLE"; break;
    default: *name = NULL; return INVALID_VALUE;
    }
    return 0;
}
