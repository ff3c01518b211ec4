/* Loaded into a process and all that it starts: writes down every host that is looked up and every address outside of
   this machine that is connected to, by Python or by native code, and lets none of it happen. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *what, const char *where) {
  const char *path = getenv("CONNECTIONS");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "%s %s\n", what, where);
  fclose(file);
}

static int is_here(const char *host) {
  return !host || !*host || !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
  char own[256] = "";
  gethostname(own, sizeof own - 1);
  if (is_here(host) || !strcmp(host, own)) return next(host, service, hints, found);
  note("lookup", host);
  return EAI_FAIL;
}

static int is_outside(const struct sockaddr *address, char *text) {
  if (!address) return 0;
  if (address->sa_family == AF_INET)
    inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, text, INET6_ADDRSTRLEN);
  else if (address->sa_family == AF_INET6)
    inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, INET6_ADDRSTRLEN);
  else
    return 0; /* a pipe of this machine */
  return !is_here(text);
}

int connect(int number, const struct sockaddr *address, socklen_t length) {
  int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
  char text[INET6_ADDRSTRLEN] = "";
  if (!is_outside(address, text)) return next(number, address, length);
  note("connect", text);
  errno = ECONNREFUSED;
  return -1;
}

ssize_t sendto(int number, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
  ssize_t (*next)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
  char text[INET6_ADDRSTRLEN] = "";
  if (!is_outside(to, text)) return next(number, data, size, flags, to, length);
  note("send", text);
  errno = ECONNREFUSED;
  return -1;
}
