/* A PLC of its own for `python -m tests.bench_plc --kind libmodbus`: it plays the handshake of the default Modbus map on libmodbus, and prints
   for each part the microseconds from raising the trigger to the request that raised result_valid. Usage: modbus_plc PORT PARTS PERIOD_US */
#include <errno.h>
#include <modbus.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TRIGGER = 0, ACKNOWLEDGE = 1, ENABLE = 3, TRIGGER_ACKNOWLEDGE = 19, READY = 21, RESULT_VALID = 24 };
enum state { WAITING, SHOWN, RAISED, LOWERED, VALID };

static long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int parts = atoi(argv[2]), part = 0, listening, got;
    long long period = atoll(argv[3]), due = 0, raised = 0, shown = 0;
    enum state state = WAITING;
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_t *plc = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    modbus_mapping_t *memory = modbus_mapping_new(64, 64, 64, 64);
    uint8_t *bit = memory->tab_bits;
    if ((listening = modbus_tcp_listen(plc, 1)) < 0) return 1;
    bit[ENABLE] = 1;
    puts("listening");
    fflush(stdout);
    while (part < parts || state != WAITING) {
        modbus_tcp_accept(plc, &listening);
        for (;;) {
            struct pollfd wanted = {modbus_get_socket(plc), POLLIN, 0};
            if (poll(&wanted, 1, 1) > 0) {
                if ((got = modbus_receive(plc, query)) < 0) break;
                if (got > 0) modbus_reply(plc, query, got, memory);
            }
            long long now = now_us();
            if (state == WAITING && bit[READY] && now >= due) {
                if (part >= parts) break;
                memory->tab_registers[0] = ++part >> 16;
                memory->tab_registers[1] = part & 0xFFFF;
                shown = now;
                state = SHOWN;
            } else if (state == SHOWN && now - shown >= 1000) {
                bit[TRIGGER] = 1;
                raised = now;
                due = now + period;
                state = RAISED;
            } else if (state == RAISED && bit[TRIGGER_ACKNOWLEDGE]) {
                bit[TRIGGER] = 0;
                state = LOWERED;
            }
            if ((state == LOWERED || state == RAISED) && bit[RESULT_VALID] && !bit[ACKNOWLEDGE]) {
                printf("%lld\n", now - raised);
                bit[TRIGGER] = 0;
                bit[ACKNOWLEDGE] = 1;
                state = VALID;
            } else if (state == VALID && !bit[RESULT_VALID]) {
                bit[ACKNOWLEDGE] = 0;
                state = WAITING;
            }
        }
        modbus_close(plc);
    }
    fflush(stdout);
    return 0;
}
