/* Reads fleet.json, of which description.py says what it means: a line is a GPU. Who includes it
   has defined VENDOR. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GPUS 64
#define INSTANCES 8

struct instance {
    char uuid[80], name[96];
    unsigned long long memory;
};

struct gpu {
    int ordinal, fastest, node, opens, recovery, ecc, in_mig_mode, instances;
    char pci[32], uuid[80], name[96], state[16], links[512];
    unsigned long long memory;
    struct instance mig[INSTANCES];
};

static struct gpu gpus[GPUS];
static int gpu_count;

static const char *value(const char *line, const char *key)
{
    char quoted[32];
    const char *at;
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    at = strstr(line, quoted);
    return at ? at + strlen(quoted) : NULL;
}

static void text(const char *line, const char *key, char *out, size_t size)
{
    const char *at = value(line, key);
    size_t length = at ? strcspn(at + 1, "\"") : 0;
    if (length >= size)
        length = size - 1;
    if (at)
        memcpy(out, at + 1, length);
    out[length] = 0;
}

/* A list, as it is in the file. */
static void list(const char *line, const char *key, char *out, size_t size)
{
    const char *at = value(line, key);
    size_t length = at ? strcspn(at, "]") : 0;
    if (length >= size)
        length = size - 1;
    if (at)
        memcpy(out, at, length);
    out[length] = 0;
}

static double number(const char *line, const char *key)
{
    const char *at = value(line, key);
    return at ? strtod(at, NULL) : 0;
}

static void read_gpu(const char *line)
{
    struct gpu *gpu = &gpus[gpu_count];
    const char *at = value(line, "mig");
    memset(gpu, 0, sizeof *gpu);
    gpu->ordinal = (int)number(line, "ordinal");
    gpu->fastest = (int)number(line, "fastest");
    gpu->node = (int)number(line, "node");
    gpu->recovery = (int)number(line, "recovery");
    gpu->ecc = (int)number(line, "ecc");
    gpu->opens = value(line, "opens") && *value(line, "opens") == 't';
    gpu->memory = (unsigned long long)number(line, "memory");
    text(line, "pci", gpu->pci, sizeof gpu->pci);
    text(line, "uuid", gpu->uuid, sizeof gpu->uuid);
    text(line, "name", gpu->name, sizeof gpu->name);
    text(line, "state", gpu->state, sizeof gpu->state);
    list(line, "links", gpu->links, sizeof gpu->links);
    gpu->in_mig_mode = at && *at == '[';
    while (at && gpu->instances < INSTANCES && value(at, "mig_uuid")) {
        struct instance *mig = &gpu->mig[gpu->instances++];
        text(at, "mig_uuid", mig->uuid, sizeof mig->uuid);
        text(at, "mig_name", mig->name, sizeof mig->name);
        mig->memory = (unsigned long long)number(at, "mig_memory");
        at = value(at, "mig_memory");
    }
    if (strcmp(gpu->state, "missing"))
        gpu_count++;
}

static inline int in_state(const struct gpu *gpu, const char *state)
{
    return !strcmp(gpu->state, state);
}

/* What a driver does that waits for a GPU which has stopped working. */
static inline void hang(void)
{
    signal(SIGTERM, SIG_IGN);
    for (;;)
        pause();
}

/* Note, in the file that FKIT_FLEET_LOG names, that a library is used. */
static void note(const char *library)
{
    const char *path = getenv("FKIT_FLEET_LOG");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%s %d\n", library, (int)getpid());
        fclose(file);
    }
}

/* Read the description; behave as it says of this library; what that is to return, 0 if all is
   well. */
static int read_fleet(const char *library)
{
    static char line[16384];
    char path[4096], quoted[64];
    const char *root = getenv("FKIT_FLEET_ROOT");
    int status = 0;
    FILE *file;
    snprintf(path, sizeof path, "%s/fleet.json", root ? root : "");
    snprintf(quoted, sizeof quoted, "\"%s\": {", library);
    gpu_count = 0;
    note(library);
    file = fopen(path, "r");
    if (!file)
        return 999;
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "{\"vendor\": \"" VENDOR "\"", strlen(VENDOR) + 13) && gpu_count < GPUS)
            read_gpu(line);
        if (!strncmp(line, quoted, strlen(quoted))) {
            const char *stubborn = value(line, "stubborn");
            double seconds = number(line, "seconds");
            if (stubborn && *stubborn == 't')
                signal(SIGTERM, SIG_IGN);
            if (seconds > 0)
                usleep((useconds_t)(seconds * 1e6));
            if (number(line, "dies"))
                raise((int)number(line, "dies"));
            status = (int)number(line, "exits");
        }
    }
    fclose(file);
    return status;
}
