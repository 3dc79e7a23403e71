#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>

#include "tally/client.h"
#include "tally/tally.h"

struct tally_client {
  tally::Client client;
  bool open;  // when nothing else can be said
};

namespace {

// Of a caller that was compiled with fewer fields.
tally_options known_part(const tally_options* options) {
  tally_options known{};
  if (options == nullptr) return known;
  if (options->size <= sizeof options->size) throw std::invalid_argument("size is not set");
  std::memcpy(&known, options, options->size < sizeof known ? options->size : sizeof known);
  return known;
}

tally::ClientOptions options_of(const char* socket, const tally_options& in) {
  tally::ClientOptions out;
  if (socket != nullptr) out.socket = socket;
  if (in.deadline_us != 0) out.deadline = std::chrono::microseconds(in.deadline_us);
  if (in.tick_us != 0) out.tick = std::chrono::microseconds(in.tick_us);
  if (in.when_away < TALLY_OPEN || in.when_away > TALLY_FALLBACK) throw std::invalid_argument("when_away");
  out.when_away = static_cast<tally::WhenAway>(in.when_away);
  out.fallback.limit = in.fallback_limit;
  if (in.fallback_window_ms != 0) out.fallback.window = std::chrono::milliseconds(in.fallback_window_ms);
  if (in.keys != 0) out.keys = in.keys;
  return out;
}

}  // namespace

tally_client* tally_open(const char* socket, const tally_options* options) {
  try {
    const tally_options known = known_part(options);
    return new tally_client{tally::Client(options_of(socket, known)), known.when_away == TALLY_OPEN};
  } catch (const std::invalid_argument&) {
    errno = EINVAL;
  } catch (const std::system_error&) {  // no thread
    errno = EAGAIN;
  } catch (const std::exception&) {
    errno = ENOMEM;
  }
  return nullptr;
}

int tally_take(tally_client* client, const char* rule, const void* key, size_t key_size, uint32_t cost,
               tally_decision* decision) {
  tally::Decision decided;
  if (client == nullptr || rule == nullptr || (key == nullptr && key_size != 0)) {
    errno = EINVAL;
  } else {
    try {
      decided = client->client.take(rule, {static_cast<const char*>(key), key_size}, cost);
    } catch (const std::exception&) {  // no memory
      decided.allowed = client->open;
    }
  }
  if (decision != nullptr)
    *decision = {decided.allowed ? 1 : 0,           static_cast<int32_t>(decided.reason), decided.limit, decided.remaining,
                 decided.retry_after.count(), decided.reset_after.count()};
  return decided.allowed ? 1 : 0;
}

void tally_error(const tally_client* client, char* text, size_t size) {
  if (text == nullptr || size == 0) return;
  text[0] = '\0';
  if (client == nullptr) return;
  try {
    const std::string error = client->client.error();
    const size_t n = error.size() < size - 1 ? error.size() : size - 1;
    std::memcpy(text, error.data(), n);
    text[n] = '\0';
  } catch (const std::exception&) {
  }
}

void tally_close(tally_client* client) { delete client; }
