/* A small real server for tests: takes listening sockets by LISTEN_FDS (or opens the port in argv[1]),
 * answers each connection with the first line of /etc/version and its process id, and ends in good
 * order on SIGTERM: what it has accepted it answers.  With /etc/broken it answers 500; with /etc/slow
 * it takes 0.2 s for an answer, with /etc/deaf it heeds no SIGTERM.  With /etc/forks a child answers
 * and its parent waits, with /etc/apart too that has a session and a root directory of its own;
 * with /etc/daemon it goes into the background, in a session of its own. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t ending;

static void end(int number) { (void)number; ending = 1; }

static int opened(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 128)) exit(3);
    return fd;
}

static void answer(int fd, const char *version) {
    char asked[1024], text[256];
    int broken = !access("/etc/broken", F_OK);
    if (read(fd, asked, sizeof asked) <= 0) { close(fd); return; }
    if (!access("/etc/slow", F_OK)) usleep(200000);
    int size = snprintf(text, sizeof text, "HTTP/1.0 %s\r\nConnection: close\r\n\r\n%s %d\n",
                        broken ? "500 Broken" : "200 OK", version, getpid());
    if (write(fd, text, size) != size) perror("write");
    shutdown(fd, SHUT_WR);
    struct pollfd one = {.fd = fd, .events = POLLIN};
    while (poll(&one, 1, 1000) == 1 && read(fd, asked, sizeof asked) > 0) {}
    close(fd);
}

int main(int argc, char **argv) {
    char version[64] = "?";
    FILE *file = fopen("/etc/version", "r");
    if (file && fgets(version, sizeof version, file)) version[strcspn(version, "\n")] = 0;
    const char *given = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    int handed = given && pid && atoi(given) == 1 && atoi(pid) == getpid();
    if (!handed && argc < 2) return 2;
    int fd = handed ? 3 : opened(atoi(argv[1]));
    if (!access("/etc/forks", F_OK) && fork()) for (;;) pause();
    if (!access("/etc/apart", F_OK) && (setsid() < 0 || chroot("/bin"))) return 4;
    if (!access("/etc/daemon", F_OK)) { if (fork()) return 0; setsid(); }
    struct sigaction action = {.sa_handler = access("/etc/deaf", F_OK) ? end : SIG_IGN};
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    sigaction(SIGTERM, &action, NULL);
    while (!ending) {
        struct pollfd one = {.fd = fd, .events = POLLIN};
        if (ppoll(&one, 1, NULL, &before) < 0 || ending) continue;
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0) continue;
        struct pollfd other = {.fd = client, .events = POLLIN};
        if (poll(&other, 1, 2000) == 1) answer(client, version); else close(client);
    }
    return 0;
}
