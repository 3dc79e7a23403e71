#include "daemon/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace tally {
namespace {

prometheus::MetricType type_of(MetricKind kind) {
  switch (kind) {
    case MetricKind::counter:
      return prometheus::MetricType::Counter;
    case MetricKind::gauge:
      return prometheus::MetricType::Gauge;
    case MetricKind::histogram:
      return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

double boot_time_seconds() {
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("btime ", 0) == 0) return std::stod(line.substr(6));
  return 0;
}

uint64_t open_descriptors() {
  DIR* directory = ::opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  uint64_t n = 0;
  while (const dirent* entry = ::readdir(directory)) n += entry->d_name[0] != '.';
  ::closedir(directory);
  return n > 0 ? n - 1 : 0;  // less the one that this look itself has open
}

}  // namespace

Family::Family(std::vector<prometheus::MetricFamily>& all, std::string name, std::string help,
               MetricKind kind)
    : all_(all), place_(all.size()), kind_(kind) {
  prometheus::MetricFamily& family = all_.emplace_back();
  family.name = std::move(name);
  family.help = std::move(help);
  family.type = type_of(kind);
}

Family& Family::add(Labels labels, double value) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  (kind_ == MetricKind::counter ? metric.counter.value : metric.gauge.value) = value;
  return add(std::move(metric));
}

Family& Family::add(prometheus::ClientMetric metric) {
  all_[place_].metric.push_back(std::move(metric));
  return *this;
}

void add_process(std::vector<prometheus::MetricFamily>& all) {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const size_t after_name = line.rfind(')');
  if (after_name == std::string::npos) return;
  // Fields 3 onwards (proc(5)): utime is 14, stime 15, starttime 22, vsize 23, rss 24.
  std::istringstream fields(line.substr(after_name + 2));
  double value[25] = {};
  std::string state;
  fields >> state;
  for (size_t i = 4; i < 25; ++i) fields >> value[i];
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  Family(all, "process_cpu_seconds_total", "User and system time spent.", MetricKind::counter)
      .add({}, (value[14] + value[15]) / ticks);
  Family(all, "process_start_time_seconds", "Start of the process since the Unix epoch.", MetricKind::gauge)
      .add({}, boot_time_seconds() + value[22] / ticks);
  Family(all, "process_virtual_memory_bytes", "Virtual memory.", MetricKind::gauge).add({}, value[23]);
  Family(all, "process_resident_memory_bytes", "Resident memory.", MetricKind::gauge)
      .add({}, value[24] * static_cast<double>(::sysconf(_SC_PAGESIZE)));
  Family(all, "process_open_fds", "Open file descriptors.", MetricKind::gauge).add({}, open_descriptors());
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  Family(all, "process_max_fds", "File descriptors that may be open.", MetricKind::gauge)
      .add({}, uint64_t{limit.rlim_cur});
}

}  // namespace tally
