#include "top.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <string_view>

namespace tally::tool {
namespace {

// The cursor hidden and lines cut at the right edge; and back.
constexpr std::string_view kTake = "\x1b[?25l\x1b[?7l\x1b[2J", kGiveBack = "\x1b[?7h\x1b[?25h";

void give_back() {
  [[maybe_unused]] const ssize_t put = ::write(STDOUT_FILENO, kGiveBack.data(), kGiveBack.size());
}

void on_signal(int) {
  give_back();
  ::_exit(0);
}

int64_t span_ms(const Reply& stats) {
  const Reply* span = stats.find("top_span_ms");
  return span != nullptr ? std::max<int64_t>(span->integer, 1) : 1;
}

std::string a_second(const Reply& count, int64_t ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f",
                static_cast<double>(count.integer) * 1000 / static_cast<double>(ms));
  return text;
}

}  // namespace

Cells top_cells(const Reply& top, const Reply& stats) {
  Cells rows{{"admitted/s", "limited/s", "rule", "key"}};
  for (const Reply& row : top.items)
    if (row.items.size() >= 4)
      rows.push_back({a_second(row.items[1], span_ms(stats)), a_second(row.items[2], span_ms(stats)),
                      row.items[3].text, row.items[0].text});
  return rows;
}

std::string top_json(const Reply& top, const Reply& stats) {
  std::string text = "{\"span_ms\":" + std::to_string(span_ms(stats)) + ",\"keys\":[";
  for (const Reply& row : top.items) {
    if (row.items.size() < 4) continue;
    constexpr std::array kNames{"{\"rule\":", ",\"key\":", ",\"admitted\":", ",\"limited\":"};
    constexpr std::array<size_t, 4> kPlaces{3, 0, 1, 2};
    if (&row != top.items.data()) text += ',';
    for (size_t i = 0; i < kNames.size(); ++i) text += kNames[i] + to_json(row.items[kPlaces[i]]);
    text += '}';
  }
  return text + "]}";
}

Screen::Screen() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::printf("%s", kTake.data());
}

Screen::~Screen() {
  std::fflush(stdout);
  give_back();
}

size_t Screen::lines() const {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row != 0 ? size.ws_row : 24;
}

void Screen::begin() { std::printf("\x1b[H\x1b[J"); }
void Screen::end() { std::fflush(stdout); }

}  // namespace tally::tool
