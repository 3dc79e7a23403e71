/* The client library from C. Prints how many of N requests were allowed.
 *
 *   cc client.c $(pkg-config --cflags --libs tally) -o client && ./client /run/tallyd/tallyd.sock api user:123 1000 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tally/tally.h>

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: client SOCKET RULE KEY N\n");
    return 64;
  }
  tally_options options = {0};
  options.size = sizeof options;
  options.deadline_us = 20000;
  options.when_away = TALLY_FALLBACK; /* without a daemon: 10 a second in this process */
  options.fallback_limit = 10;
  options.fallback_window_ms = 1000;
  tally_client *client = tally_open(argv[1], &options);
  if (client == NULL) {
    perror("tally_open");
    return 1;
  }
  const long n = atol(argv[4]);
  long allowed = 0;
  for (long i = 0; i < n; ++i) {
    tally_decision decision;
    if (tally_take(client, argv[2], argv[3], strlen(argv[3]), 1, &decision)) ++allowed;
    if (decision.reason == TALLY_AWAY && i == 0) {
      char error[256];
      tally_error(client, error, sizeof error);
      fprintf(stderr, "%s\n", error);
    }
  }
  tally_close(client);
  printf("allowed %ld of %ld\n", allowed, n);
  return 0;
}
