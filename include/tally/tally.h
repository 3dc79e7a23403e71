/* Rate limits of a tallyd on this host, in C: the same as client.h, whose comments hold here, for every language that can call C.
 *
 *   tally_client *client = tally_open(NULL, NULL);
 *   tally_decision decision;
 *   if (!tally_take(client, "api", "user:123", 8, 1, &decision)) ...
 *
 * Thread rule: every call from any thread, tally_close once and last. Nothing here throws, exits or writes to a terminal. */
#ifndef TALLY_TALLY_H
#define TALLY_TALLY_H

#include <stddef.h>
#include <stdint.h>

#define TALLY_C_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tally_client tally_client;

enum { TALLY_OPEN = 0, TALLY_CLOSED = 1, TALLY_FALLBACK = 2 };

/* Zero: the default of client.h. Grows at its end only: set size to sizeof(tally_options). */
typedef struct {
  size_t size;
  int64_t deadline_us;
  int64_t tick_us;
  int32_t when_away; /* TALLY_OPEN, TALLY_CLOSED, TALLY_FALLBACK */
  uint32_t fallback_limit;
  int64_t fallback_window_ms;
  size_t keys;
} tally_options;

enum {
  TALLY_ADMITTED = 0,
  TALLY_OVER_LIMIT = 1,
  TALLY_NO_GRANT = 2,
  TALLY_ISOLATED = 3,
  TALLY_SHADOW = 4,
  TALLY_BLOCKED = 5,
  TALLY_EXEMPT = 6,
  TALLY_AWAY = 7
};

typedef struct {
  int32_t allowed; /* 1 or 0 */
  int32_t reason;
  uint32_t limit;
  uint32_t remaining;
  int64_t retry_after_us; /* -1: nothing to wait for, or never */
  int64_t reset_after_us;
} tally_decision;

/* socket: a path; NULL: as client.h finds it. options: NULL for the defaults. Returns NULL where an option is out of its range, with
 * errno EINVAL; where the process may have no further thread, EAGAIN; where there is no memory, ENOMEM. */
TALLY_C_API tally_client *tally_open(const char *socket, const tally_options *options);

/* Returns whether it is allowed. rule: a string; key: key_size bytes, 1 to 1,024; decision: where the rest goes, or NULL. A client, rule or key
 * that is NULL is not allowed, with errno EINVAL. */
TALLY_C_API int tally_take(tally_client *client, const char *rule, const void *key, size_t key_size, uint32_t cost, tally_decision *decision);

/* Why the last call that when_away decided was: writes a string of at most size - 1 bytes and its 0, "" if there was none. */
TALLY_C_API void tally_error(const tally_client *client, char *text, size_t size);

/* Puts back what is held, and frees the client. NULL: nothing. */
TALLY_C_API void tally_close(tally_client *client);

#ifdef __cplusplus
}
#endif
#endif
