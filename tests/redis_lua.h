// What scripts in Redis have that plain Lua has not, as far as those of the books need it: `struct`, and a
// `redis` that keeps hashes and strings in memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <lua.hpp>
#include <string>

namespace tally {

// One item of a format of Redis's struct library: little-endian numbers and texts of fixed length.
struct StructItem {
  char kind = 0;  // B, I, i, d, c; 0: the format is over
  size_t size = 0;
};

inline StructItem next_item(const char*& format) {
  while (*format == '<') ++format;
  if (*format == '\0') return {};
  StructItem item{*format++};
  while (*format >= '0' && *format <= '9') item.size = item.size * 10 + static_cast<size_t>(*format++ - '0');
  if (item.kind == 'B') item = {'I', 1};
  if (item.kind == 'd') item.size = 8;
  return item;
}

inline int struct_pack(lua_State* lua) {
  const char* format = luaL_checkstring(lua, 1);
  std::string out;
  int argument = 2;
  for (StructItem item = next_item(format); item.kind != 0; item = next_item(format), ++argument) {
    if (item.kind == 'c') {
      size_t length = 0;
      const char* text = luaL_checklstring(lua, argument, &length);
      if (length < item.size) return luaL_error(lua, "string too short");
      out.append(text, item.size);
      continue;
    }
    const double number = luaL_checknumber(lua, argument);
    uint64_t bits = 0;
    if (item.kind == 'd') {
      std::memcpy(&bits, &number, sizeof(bits));
    } else {
      bits = number < 0 ? static_cast<uint64_t>(static_cast<int64_t>(number)) : static_cast<uint64_t>(number);
      const int unused = static_cast<int>(64 - 8 * item.size);
      const uint64_t kept = bits << unused;
      const double back = item.kind == 'i' ? static_cast<double>(static_cast<int64_t>(kept) >> unused)
                                           : static_cast<double>(kept >> unused);
      if (back != number)
        return luaL_error(lua, "argument %d, %f, has no place in %d bytes", argument, number,
                          static_cast<int>(item.size));
    }
    for (size_t i = 0; i < item.size; ++i) out += static_cast<char>(bits >> 8 * i & 255);
  }
  lua_pushlstring(lua, out.data(), out.size());
  return 1;
}

inline int struct_unpack(lua_State* lua) {
  const char* format = luaL_checkstring(lua, 1);
  size_t length = 0;
  const char* text = luaL_checklstring(lua, 2, &length);
  auto at = static_cast<size_t>(luaL_optinteger(lua, 3, 1) - 1);
  int values = 0;
  for (StructItem item = next_item(format); item.kind != 0; item = next_item(format), ++values) {
    if (at + item.size > length) return luaL_error(lua, "data string too short");
    luaL_checkstack(lua, 2, "too many values");
    uint64_t bits = 0;
    if (item.kind != 'c') {
      for (size_t i = 0; i < item.size; ++i) bits |= uint64_t{static_cast<uint8_t>(text[at + i])} << 8 * i;
    }
    const int unused = static_cast<int>(64 - 8 * std::min<size_t>(8, item.size));
    double number = 0;
    std::memcpy(&number, &bits, sizeof(number));
    if (item.kind == 'c') lua_pushlstring(lua, text + at, item.size);
    if (item.kind == 'd') lua_pushnumber(lua, number);
    if (item.kind == 'I') lua_pushnumber(lua, static_cast<double>(bits));
    if (item.kind == 'i')
      lua_pushnumber(lua, static_cast<double>(static_cast<int64_t>(bits << unused) >> unused));
    at += item.size;
  }
  lua_pushinteger(lua, static_cast<lua_Integer>(at + 1));
  return values + 1;
}

inline int struct_size(lua_State* lua) {
  const char* format = luaL_checkstring(lua, 1);
  size_t size = 0;
  for (StructItem item = next_item(format); item.kind != 0; item = next_item(format)) size += item.size;
  lua_pushinteger(lua, static_cast<lua_Integer>(size));
  return 1;
}

// `redis_time`: microseconds since the epoch, of whoever has the state; below 0 nothing ends. `redis_all` is what is kept, `redis_said` what
// was published and is not taken yet.
inline constexpr const char* kRedisInMemory = R"lua(
  redis_time, redis_all, redis_said = -1, {}, {}
  local function find(name)
    local one = redis_all[name]
    if one and one.finish and one.finish <= redis_time / 1000 then
      redis_all[name] = nil
      return nil
    end
    return one and one.value
  end
  local commands = {
    TIME = function() return {math.floor(redis_time / 1000000), redis_time % 1000000} end,
    GET = function(name) return find(name) or false end,
    SET = function(name, value) redis_all[name] = {value = value} end,
    HGET = function(name, field) return find(name) and find(name)[field] or false end,
    HMGET = function(name, ...)
      local values = {}
      for i, field in ipairs({...}) do values[i] = find(name) and find(name)[field] or false end
      return values
    end,
    HGETALL = function(name)
      local all = {}
      for field, value in pairs(find(name) or {}) do
        all[#all + 1] = field
        all[#all + 1] = value
      end
      return all
    end,
    HSET = function(name, ...)
      if not find(name) then redis_all[name] = {value = {}} end
      local words = {...}
      for i = 1, #words, 2 do redis_all[name].value[words[i]] = words[i + 1] end
    end,
    PEXPIREAT = function(name, finish) redis_all[name].finish = tonumber(finish) end,
    PUBLISH = function(channel, message) redis_said[#redis_said + 1] = {channel, message} end,
  }
  redis = {call = function(command, ...) return commands[command](...) end}
  redis.pcall = redis.call
  function redis_copy(all)
    local copy = {}
    for name, one in pairs(all) do
      copy[name] = {value = one.value, finish = one.finish}
      if type(one.value) == "table" then
        copy[name].value = {}
        for field, value in pairs(one.value) do copy[name].value[field] = value end
      end
    end
    return copy
  end
)lua";

// Gives a state both.
inline void add_redis(lua_State* lua) {
  const luaL_Reg functions[] = {
      {"pack", struct_pack}, {"unpack", struct_unpack}, {"size", struct_size}, {nullptr, nullptr}};
  luaL_register(lua, "struct", functions);
  lua_pop(lua, 1);
  if (luaL_dostring(lua, kRedisInMemory) != 0) luaL_error(lua, "%s", lua_tostring(lua, -1));
}

}  // namespace tally
