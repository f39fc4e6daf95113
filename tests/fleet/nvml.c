/* libnvidia-ml.so.1 of a machine that does not exist. Names, numbers and layouts: nvml.h, as the
   NVML API reference has it, and nvidia-ml-py. */

#define VENDOR "nvidia"
#include "fleet.h"

#define NOT_FOUND 6
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define TIMEOUT 10
#define GPU_IS_LOST 15

struct handle {
    struct gpu *gpu;
    struct instance *mig;
};

struct pci_info {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

#define RECOVERY_ACTION 230 /* NVML_FI_DEV_GET_GPU_RECOVERY_ACTION */

struct field {
    unsigned id, scope;
    long long timestamp, latency;
    unsigned value_type, status;
    union {
        unsigned number;
        unsigned long long whole;
    } value;
};

static struct handle whole[GPUS], parts[GPUS][INSTANCES];
static int initialized;

int nvmlInitWithFlags(unsigned flags)
{
    int status = read_fleet("libnvidia-ml.so.1");
    (void)flags;
    initialized = status == 0;
    return status;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void)
{
    initialized = 0;
    return 0;
}

const char *nvmlErrorString(int status)
{
    switch (status) {
    case 0: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case 9: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = (unsigned)gpu_count;
    return initialized ? 0 : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **device)
{
    int i;
    if (!initialized)
        return UNINITIALIZED;
    for (i = 0; i < gpu_count; i++)
        if (gpus[i].ordinal == (int)index) {
            whole[i].gpu = &gpus[i];
            *device = &whole[i];
            return strcmp(gpus[i].state, "lost") ? 0 : GPU_IS_LOST;
        }
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, struct handle **device)
{
    int i;
    for (i = 0; i < gpu_count; i++)
        if (!strcasecmp(gpus[i].pci, address))
            return nvmlDeviceGetHandleByIndex_v2((unsigned)gpus[i].ordinal, device);
    return NOT_FOUND;
}

int nvmlDeviceGetFieldValues(struct handle *device, int count, struct field *fields)
{
    int i;
    for (i = 0; i < count; i++) {
        fields[i].status = fields[i].id == RECOVERY_ACTION ? 0 : NOT_SUPPORTED;
        fields[i].value_type = 1; /* NVML_VALUE_TYPE_UNSIGNED_INT */
        fields[i].value.whole = 0xABABABABCDCDCDCDULL; /* only the number is to be read */
        fields[i].value.number = (unsigned)device->gpu->recovery;
    }
    return 0;
}

int nvmlDeviceGetTotalEccErrors(struct handle *device, int type, int counter,
                                unsigned long long *count)
{
    *count = (unsigned long long)device->gpu->ecc;
    return type == 1 && counter == 0 ? 0 : NOT_SUPPORTED; /* uncorrected, volatile */
}

int nvmlDeviceGetUUID(struct handle *device, char *out, unsigned size)
{
    snprintf(out, size, "%s", device->mig ? device->mig->uuid : device->gpu->uuid);
    return 0;
}

int nvmlDeviceGetName(struct handle *device, char *out, unsigned size)
{
    snprintf(out, size, "%s", device->mig ? device->mig->name : device->gpu->name);
    return 0;
}

int nvmlDeviceGetPciInfo_v3(struct handle *device, struct pci_info *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->bus_id, sizeof out->bus_id, "0000%.27s", device->gpu->pci);
    return 0;
}

/* What is in use, by the file "used" of the machine: a line is UUID, bytes, per cent. Each time a
   byte is appended to the file "looks". */
static void read_used(struct handle *device, unsigned long long *bytes, unsigned *percent)
{
    const char *uuid = device->mig ? device->mig->uuid : device->gpu->uuid;
    const char *root = getenv("FKIT_FLEET_ROOT");
    char path[4096], found[80];
    FILE *file;
    snprintf(path, sizeof path, "%s/used", root ? root : "");
    *bytes = *percent = 0;
    file = fopen(path, "r");
    while (file && fscanf(file, "%79s %llu %u", found, bytes, percent) == 3)
        if (!strcmp(found, uuid))
            break;
    if (file && (feof(file) || strcmp(found, uuid)))
        *bytes = *percent = 0;
    if (file)
        fclose(file);
    snprintf(path, sizeof path, "%s/looks", root ? root : "");
    if (file && (file = fopen(path, "a"))) {
        fputc('.', file);
        fclose(file);
    }
}

/* What processes have that are gone, and the driver has not freed yet, by the file "late": a line is
   UUID, bytes, and how often it is looked at before they are free; "late-looks" has a byte for each
   time. */
static unsigned long long read_late(struct handle *device)
{
    const char *uuid = device->mig ? device->mig->uuid : device->gpu->uuid;
    const char *root = getenv("FKIT_FLEET_ROOT");
    unsigned long long bytes, sum = 0;
    char path[4096], found[80];
    long looks;
    FILE *file, *seen;
    snprintf(path, sizeof path, "%s/late", root ? root : "");
    file = fopen(path, "r");
    if (!file)
        return 0;
    snprintf(path, sizeof path, "%s/late-looks", root ? root : "");
    seen = fopen(path, "a");
    while (fscanf(file, "%79s %llu %ld", found, &bytes, &looks) == 3)
        if (!strcmp(found, uuid) && seen) {
            fputc('.', seen);
            if (ftell(seen) <= looks)
                sum += bytes;
        }
    fclose(file);
    if (seen)
        fclose(seen);
    return sum;
}

int nvmlDeviceGetMemoryInfo(struct handle *device, unsigned long long *out)
{
    unsigned percent;
    const char *root = getenv("FKIT_FLEET_ROOT");
    char path[4096];
    snprintf(path, sizeof path, "%s/hangs", root ? root : ""); /* there is such a file */
    if (!access(path, F_OK))
        hang();
    out[0] = device->mig ? device->mig->memory : device->gpu->memory;
    read_used(device, &out[2], &percent);
    out[2] += read_late(device);
    out[1] = out[0] - out[2];
    return 0;
}

struct process { /* nvmlProcessInfo_v2_t */
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

/* By the file "processes" of the machine: a line is UUID, pid, bytes, -1 for a driver that does not
   tell (NVML_VALUE_NOT_AVAILABLE). */
int nvmlDeviceGetComputeRunningProcesses_v3(struct handle *device, unsigned *number,
                                            struct process *out)
{
    const char *uuid = device->mig ? device->mig->uuid : device->gpu->uuid;
    const char *root = getenv("FKIT_FLEET_ROOT");
    char path[4096], found[80];
    unsigned count = 0, pid;
    long long bytes;
    FILE *file;
    snprintf(path, sizeof path, "%s/processes", root ? root : "");
    file = fopen(path, "r");
    while (file && fscanf(file, "%79s %u %lld", found, &pid, &bytes) == 3)
        if (!strcmp(found, uuid)) {
            if (count < *number)
                out[count] = (struct process){pid, (unsigned long long)bytes, ~0u, ~0u};
            count++;
        }
    if (file)
        fclose(file);
    if (count > *number) {
        *number = count;
        return 7; /* NVML_ERROR_INSUFFICIENT_SIZE */
    }
    *number = count;
    return 0;
}

int nvmlDeviceGetUtilizationRates(struct handle *device, unsigned *out)
{
    unsigned long long bytes;
    out[1] = 0;
    read_used(device, &bytes, &out[0]);
    return device->mig ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetMigMode(struct handle *device, unsigned *current, unsigned *pending)
{
    *current = *pending = (unsigned)device->gpu->in_mig_mode;
    return 0;
}

int nvmlDeviceGetP2PStatus(struct handle *one, struct handle *other, int index, int *status)
{
    if (index != 2) /* NVML_P2P_CAPS_INDEX_NVLINK */
        return NOT_SUPPORTED;
    /* NVML_P2P_STATUS_OK, NVML_P2P_STATUS_NOT_SUPPORTED */
    *status = strstr(one->gpu->links, other->gpu->pci) ? 0 : 5;
    return 0;
}

int nvmlDeviceGetMaxMigDeviceCount(struct handle *device, unsigned *count)
{
    *count = device->gpu->in_mig_mode ? INSTANCES : 0;
    return 0;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *device, unsigned index, struct handle **out)
{
    struct handle *part = &parts[device->gpu - gpus][index];
    if ((int)index >= device->gpu->instances)
        return NOT_FOUND;
    part->gpu = device->gpu;
    part->mig = &device->gpu->mig[index];
    *out = part;
    return 0;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct handle **device)
{
    int i, j;
    if (!initialized)
        return UNINITIALIZED;
    for (i = 0; i < gpu_count; i++) {
        if (!strcmp(gpus[i].uuid, uuid))
            return nvmlDeviceGetHandleByIndex_v2((unsigned)gpus[i].ordinal, device);
        for (j = 0; j < gpus[i].instances; j++)
            if (!strcmp(gpus[i].mig[j].uuid, uuid)) {
                whole[i].gpu = &gpus[i];
                return nvmlDeviceGetMigDeviceHandleByIndex(&whole[i], (unsigned)j, device);
            }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceId(struct handle *device, unsigned *number)
{
    if (!device->mig)
        return INVALID_ARGUMENT;
    *number = (unsigned)(device->mig - device->gpu->mig) + 1;
    return 0;
}

/* Events: of GPUs, not of MIG instances, and where the machine has a file "xids". What happens is in
   it: a line is UUID, number, GPU instance (-1 for none), and milliseconds after which it is told;
   or, in the place of the UUID, "hang" or "crash". */

#define XID 8 /* nvmlEventTypeXidCriticalError */

struct event {
    struct handle *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

static struct handle *registered[GPUS];
static struct handle others[GPUS]; /* as good as those that were registered */
static long events_read;

static void xids(char *path, size_t size)
{
    const char *root = getenv("FKIT_FLEET_ROOT");
    snprintf(path, size, "%s/xids", root ? root : "");
}

int nvmlEventSetCreate(void **set)
{
    *set = registered;
    return 0;
}

int nvmlDeviceRegisterEvents(struct handle *device, unsigned long long types, void *set)
{
    char path[4096];
    xids(path, sizeof path);
    if (access(path, R_OK))
        return NOT_SUPPORTED;
    if (set != registered || types != XID || device->mig)
        return INVALID_ARGUMENT;
    registered[device->gpu - gpus] = device;
    return 0;
}

static int next_event(struct event *out)
{
    char path[4096], line[256], uuid[80];
    unsigned long long number;
    int instance, i;
    FILE *file;
    xids(path, sizeof path);
    file = fopen(path, "r");
    if (!file)
        return 0;
    fseek(file, events_read, SEEK_SET);
    while (fgets(line, sizeof line, file) && strchr(line, '\n')) {
        events_read = ftell(file);
        unsigned delay = 0;
        if (sscanf(line, "%79s %llu %d %u", uuid, &number, &instance, &delay) < 3)
            continue;
        usleep(delay * 1000);
        if (!strcmp(uuid, "crash"))
            raise(SIGSEGV);
        if (!strcmp(uuid, "hang"))
            hang();
        for (i = 0; i < gpu_count; i++)
            if (registered[i] && !strcmp(gpus[i].uuid, uuid)) {
                others[i] = *registered[i];
                *out = (struct event){i % 2 ? &others[i] : registered[i], XID, number,
                                      (unsigned)instance, (unsigned)-1};
                fclose(file);
                return 1;
            }
    }
    fclose(file);
    return 0;
}

int nvmlEventSetWait_v2(void *set, struct event *out, unsigned milliseconds)
{
    unsigned waited;
    (void)set;
    for (waited = 0; waited <= milliseconds; waited += 5) {
        if (next_event(out))
            return 0;
        usleep(5000);
    }
    return TIMEOUT;
}
