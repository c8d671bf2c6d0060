/* The load: many TLS connections from one thread, straight to a server or through CONNECT. Built by build.py.
 *
 *     load MODE PROXY|-[ADDRESS] TARGET_PORT NAME PATH CONNECTIONS MILLISECONDS|COUNT [TOKEN] [BODY_BYTES]
 *
 *     keepalive  each connection asks again as soon as it was answered        for MILLISECONDS after a warm-up
 *     cold       a connection for each request                                for MILLISECONDS after a warm-up
 *     transfer   COUNT requests in all, answers and bodies of any size        (COUNT instead of a time)
 *     events     one endless answer a connection, each line `data: NANOSECONDS`, measured against our clock
 *     idle       one request a connection, which then stays until standard input ends
 *
 * Prints `begin` when measuring begins, so that the caller can read the clocks of others at the same moment, and at the
 * end one JSON object. Answers other than 2xx and connections that break are errors, and the caller refuses a run with any.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_S 0.3
#define IN_FLIGHT 16 /* connections that are made at once where they come to stay: backlogs are short */
#define PIECE 65536

enum mode { KEEPALIVE, COLD, TRANSFER, EVENTS, IDLE, MODES };
static const char *const MODE_NAMES[MODES] = {"keepalive", "cold", "transfer", "events", "idle"};
enum state { CONNECTING, PROXYING, SHAKING, SENDING, HEAD, BODY, RESTING };

struct client {
    int fd;
    SSL *ssl;
    enum state state;
    int64_t started, unsent, unread; /* unread < 0: endless */
    size_t held;
    char buffer[PIECE];
};

static enum mode mode;
static const char *proxy_host, *name, *path, *token;
static int proxy_port, target_port, width, opened, settled, epoll_fd;
static int64_t amount, body_bytes, begun, ends, asked, answered, errors, received;
static uint32_t *delays;
static size_t delay_count, delay_room;
static char request[2048], greeting[1024], zeros[PIECE];
static SSL_CTX *context;
static double cpu_before;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void begin(int64_t now) {
    begun = now;
    answered = received = 0;
    delay_count = 0;
    cpu_before = cpu_s();
    puts("begin");
    fflush(stdout);
}

static void remember(int64_t delay_ns) {
    if (delay_count == delay_room) {
        delay_room = delay_room ? delay_room * 2 : 65536;
        delays = realloc(delays, delay_room * sizeof *delays);
    }
    delays[delay_count++] = delay_ns < 0 ? 0 : (uint32_t)(delay_ns / 100); /* tenths of a microsecond */
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    return delay_count ? delays[(size_t)(share * (double)(delay_count - 1))] / 10.0 : 0;
}

static void open_client(struct client *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(proxy_port)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    int on = 1;
    inet_pton(AF_INET, proxy_host, &to.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->started = now_ns();
    c->state = CONNECTING;
    c->held = 0;
    connect(c->fd, (struct sockaddr *)&to, sizeof to);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
    opened++;
}

static void close_client(struct client *c) {
    if (c->ssl) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        c->ssl = NULL;
    }
    ERR_clear_error();
    close(c->fd);
}

/* Opens again: in `cold` for the next request, elsewhere only after an error. */
static void renew(struct client *c) {
    close_client(c);
    open_client(c);
}

static int broken(struct client *c) {
    if (errors++ < 3) fprintf(stderr, "load: connection broke in state %d: %.200s\n", c->state, c->held ? c->buffer : "");
    if (errors > 1000) exit(1);
    if (mode == TRANSFER) asked--;
    renew(c);
    return 0;
}

static int wants(struct client *c, int result) {
    int problem = SSL_get_error(c->ssl, result);
    return problem == SSL_ERROR_WANT_READ || problem == SSL_ERROR_WANT_WRITE ? 0 : broken(c);
}

static void ask(struct client *c) {
    c->state = SENDING;
    c->unsent = (int64_t)strlen(request) + body_bytes;
    c->held = 0;
    asked++;
}

static int after_connect(struct client *c) {
    int problem = 0;
    socklen_t size = sizeof problem;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    if (problem) return broken(c);
    if (*greeting) {
        ssize_t sent = send(c->fd, greeting, strlen(greeting), MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return 0; /* not connected yet */
        if (sent != (ssize_t)strlen(greeting)) return broken(c);
        c->state = PROXYING;
        return 1;
    }
    c->state = SHAKING;
    return 1;
}

static int after_proxy(struct client *c) {
    ssize_t count = recv(c->fd, c->buffer + c->held, 1024 - c->held, 0);
    if (count < 0 && errno == EAGAIN) return 0;
    if (count <= 0) return broken(c);
    c->held += (size_t)count;
    c->buffer[c->held] = 0;
    if (!strstr(c->buffer, "\r\n\r\n")) return 1;
    if (strncmp(c->buffer + 8, " 200", 4)) return broken(c);
    c->state = SHAKING;
    return 1;
}

static int shake(struct client *c) {
    if (!c->ssl) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_tlsext_host_name(c->ssl, name);
        SSL_set_connect_state(c->ssl);
    }
    int done = SSL_do_handshake(c->ssl);
    if (done != 1) return wants(c, done);
    ask(c);
    return 1;
}

static int send_request(struct client *c) {
    while (c->unsent > 0) {
        int is_head = c->unsent > body_bytes;
        int size = is_head ? (int)(c->unsent - body_bytes) : (int)(c->unsent < PIECE ? c->unsent : PIECE);
        int sent = SSL_write(c->ssl, is_head ? request + strlen(request) - size : zeros, size);
        if (sent <= 0) return wants(c, sent);
        c->unsent -= sent;
    }
    c->state = HEAD;
    return 1;
}

/* Called with the whole answer read. Returns whether the client has more to do at once. */
static int finish(struct client *c) {
    int64_t now = now_ns();
    answered++;
    if (begun) remember(now - c->started);
    if (mode == IDLE) {
        settled++;
        c->state = RESTING;
        return 0;
    }
    if (mode == COLD) {
        renew(c);
        return 0;
    }
    if (mode == TRANSFER && asked >= amount) {
        c->state = RESTING;
        return 0;
    }
    c->started = now;
    ask(c);
    return 1;
}

static int read_head(struct client *c) {
    int count = SSL_read(c->ssl, c->buffer + c->held, PIECE - 1 - (int)c->held);
    if (count <= 0) return wants(c, count);
    c->held += (size_t)count;
    c->buffer[c->held] = 0;
    char *end = strstr(c->buffer, "\r\n\r\n");
    if (!end) return c->held < PIECE - 1 ? 1 : broken(c);
    if (c->buffer[9] != '2') return broken(c);
    *end = 0;
    char *length = strcasestr(c->buffer, "\r\ncontent-length:");
    size_t body = c->held - (size_t)(end + 4 - c->buffer);
    c->unread = length ? atoll(length + 17) - (int64_t)body : -1;
    received += (int64_t)body;
    memmove(c->buffer, end + 4, body + 1);
    c->held = mode == EVENTS ? body : 0;
    c->state = BODY;
    if (mode == EVENTS) settled++;
    return c->unread == 0 ? finish(c) : 1;
}

/* Takes whole lines out of what is there; those of chunked framing begin with no `data: `. */
static void take_events(struct client *c) {
    char *line = c->buffer, *end;
    int64_t now = now_ns();
    while ((end = memchr(line, '\n', c->held - (size_t)(line - c->buffer)))) {
        if (begun && !strncmp(line, "data: ", 6)) {
            remember(now - atoll(line + 6));
            answered++;
        }
        line = end + 1;
    }
    c->held -= (size_t)(line - c->buffer);
    memmove(c->buffer, line, c->held);
}

static int read_body(struct client *c) {
    int count = SSL_read(c->ssl, c->buffer + c->held, PIECE - 1 - (int)c->held);
    if (count <= 0) return wants(c, count);
    received += count;
    if (mode == EVENTS) {
        c->held += (size_t)count;
        take_events(c);
    } else {
        c->unread -= count;
    }
    return c->unread == 0 ? finish(c) : 1;
}

static void drive(struct client *c) {
    static int (*const steps[])(struct client *) = {after_connect, after_proxy, shake, send_request, read_head, read_body};
    while (c->state != RESTING && steps[c->state](c)) {
    }
}

static void set_up(char **argv, int argc) {
    char *colon = strchr(argv[2], ':');
    while (mode < MODES && strcmp(argv[1], MODE_NAMES[mode])) mode++;
    if (mode == MODES) exit(2);
    target_port = atoi(argv[3]), name = argv[4], path = argv[5], width = atoi(argv[6]), amount = atoll(argv[7]);
    token = argc > 8 ? argv[8] : "";
    body_bytes = argc > 9 ? atoll(argv[9]) : 0;
    proxy_host = argv[2][1] && !colon ? argv[2] + 1 : "127.0.0.1", proxy_port = target_port;
    if (colon) {
        *colon = 0;
        proxy_host = argv[2], proxy_port = atoi(colon + 1);
        snprintf(greeting, sizeof greeting, "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n%s%s%s\r\n", name, target_port, name, target_port,
                 *token ? "Proxy-Authorization: Basic " : "", token, *token ? "\r\n" : "");
    }
    char length[64] = "";
    if (body_bytes) snprintf(length, sizeof length, "Content-Length: %lld\r\n", (long long)body_bytes);
    snprintf(request, sizeof request,
             "%s %s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: moat-bench/1\r\nAccept: */*\r\n"
             "Authorization: Bearer placeholder\r\n%s\r\n", body_bytes ? "POST" : "GET", path, name, target_port, length);
    context = SSL_CTX_new(TLS_client_method()); /* nothing verified here: the caller has looked at each certificate once */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, PIECE);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
}

static void report(double seconds) {
    qsort(delays, delay_count, sizeof *delays, by_size);
    printf("{\"seconds\": %.6f, \"cpu_s\": %.6f, \"answered\": %lld, \"errors\": %lld, \"received\": %lld, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"measured\": %zu}\n",
           seconds, cpu_s() - cpu_before, (long long)answered, (long long)errors, (long long)received,
           percentile(0.5), percentile(0.99), delay_count);
}

static int is_over(int64_t now, struct client *clients) {
    int may_begin = mode == TRANSFER || (mode == EVENTS ? settled >= width : mode != IDLE);
    if (mode == IDLE && settled >= width) {
        begin(now);
        while (getchar() != EOF) {
        }
        return 1;
    }
    for (; (mode == EVENTS || mode == IDLE) && opened < width && opened - settled < IN_FLIGHT;) open_client(&clients[opened]);
    if (may_begin && !ends) {
        ends = now + (int64_t)(WARM_UP_S * 1e9); /* for now: the end of the warm-up */
        if (mode == TRANSFER) ends = now;
    }
    if (ends && !begun && now >= ends) {
        begin(now);
        ends = mode == TRANSFER ? INT64_MAX : now + amount * 1000000LL;
    }
    return begun && (mode == TRANSFER ? answered >= amount : now >= ends);
}

int main(int argc, char **argv) {
    struct epoll_event events[256];
    if (argc < 8) return 2;
    set_up(argv, argc);
    struct client *clients = calloc((size_t)width, sizeof *clients);
    if (mode == TRANSFER) is_over(now_ns(), clients);
    for (int i = 0; mode < EVENTS && i < width; i++) open_client(&clients[i]);
    while (!is_over(now_ns(), clients)) {
        int count = epoll_wait(epoll_fd, events, 256, 20);
        for (int i = 0; i < count; i++) drive(events[i].data.ptr);
    }
    report((double)(now_ns() - begun) / 1e9);
    return 0;
}
