// A Redis in memory that runs the scripts of the books as they ship, at whatever time it is told.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <lua.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "books/scripts.h"
#include "redis_lua.h"

namespace tally::test {

// Redis's cmsgpack: whole numbers as such, tables with the keys 1 to n as arrays.
inline nlohmann::json json_of(lua_State* lua, int at) {
  using nlohmann::json;
  switch (lua_type(lua, at)) {
    case LUA_TNIL:
      return nullptr;
    case LUA_TBOOLEAN:
      return lua_toboolean(lua, at) != 0;
    case LUA_TNUMBER: {
      const double n = lua_tonumber(lua, at);
      if (n == std::floor(n) && std::abs(n) < 0x1p63) return static_cast<int64_t>(n);
      return n;
    }
    case LUA_TSTRING: {
      size_t length = 0;
      const char* text = lua_tolstring(lua, at, &length);
      return std::string(text, length);
    }
    default:
      break;
  }
  if (lua_type(lua, at) != LUA_TTABLE) luaL_error(lua, "a value that cmsgpack cannot pack");
  const size_t size = lua_objlen(lua, at);
  json array = json::array(), map = json::object();
  lua_pushnil(lua);
  size_t fields = 0;
  while (lua_next(lua, at < 0 ? at - 1 : at) != 0) {
    ++fields;
    lua_pop(lua, 1);
  }
  if (fields == size) {
    for (size_t i = 1; i <= size; ++i) {
      lua_rawgeti(lua, at, static_cast<int>(i));
      array.push_back(json_of(lua, lua_gettop(lua)));
      lua_pop(lua, 1);
    }
    return array;
  }
  lua_pushnil(lua);
  while (lua_next(lua, at < 0 ? at - 1 : at) != 0) {
    map[lua_tostring(lua, -2)] = json_of(lua, lua_gettop(lua));
    lua_pop(lua, 1);
  }
  return map;
}

inline void push_json(lua_State* lua, const nlohmann::json& value) {
  luaL_checkstack(lua, 3, "too deep");
  if (value.is_boolean()) return lua_pushboolean(lua, value.get<bool>());
  if (value.is_number()) return lua_pushnumber(lua, value.get<double>());
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    lua_pushlstring(lua, text.data(), text.size());
    return;
  }
  if (value.is_null()) return lua_pushnil(lua);
  lua_newtable(lua);
  int i = 0;
  for (const auto& [name, one] : value.items()) {
    push_json(lua, one);
    if (value.is_array())
      lua_rawseti(lua, -2, ++i);
    else
      lua_setfield(lua, -2, name.c_str());
  }
}

class ScriptedRedis {
 public:
  using All = int;  // what was kept at a moment: a reference of Lua

  ScriptedRedis() : lua_(luaL_newstate()) {
    luaL_openlibs(lua_);
    add_redis(lua_);
    const luaL_Reg functions[] = {{"pack", pack}, {"unpack", unpack}, {nullptr, nullptr}};
    luaL_register(lua_, "cmsgpack", functions);
    lua_pop(lua_, 1);
    for (const BooksScript script : {BooksScript::apply, BooksScript::life}) {
      const std::string text = text_of(script);
      REQUIRE_MESSAGE(luaL_loadbuffer(lua_, text.data(), text.size(), "script") == 0, std::string(lua_tostring(lua_, -1)));
      scripts_[static_cast<size_t>(script)] = luaL_ref(lua_, LUA_REGISTRYINDEX);
    }
  }
  ~ScriptedRedis() { lua_close(lua_); }
  ScriptedRedis(const ScriptedRedis&) = delete;
  ScriptedRedis& operator=(const ScriptedRedis&) = delete;

  // What the script returned; nullopt: nothing. A script that fails ends the test.
  std::optional<std::string> call(BooksScript script, const std::vector<std::string>& keys, const std::vector<std::string>& arguments, WallTime now) {
    lua_pushnumber(lua_, static_cast<double>(nanos(now) / 1000));
    lua_setglobal(lua_, "redis_time");
    set("KEYS", keys);
    set("ARGV", arguments);
    lua_rawgeti(lua_, LUA_REGISTRYINDEX, scripts_[static_cast<size_t>(script)]);
    REQUIRE_MESSAGE(lua_pcall(lua_, 0, 1, 0) == 0, std::string(lua_tostring(lua_, -1)));
    std::optional<std::string> text;
    size_t length = 0;
    if (lua_isstring(lua_, -1) != 0) {
      const char* at = lua_tolstring(lua_, -1, &length);
      text = std::string(at, length);
    }
    lua_pop(lua_, 1);
    return text;
  }

  std::vector<std::pair<std::string, std::string>> take_published() {
    std::vector<std::pair<std::string, std::string>> all;
    lua_getglobal(lua_, "redis_said");
    const nlohmann::json said = json_of(lua_, lua_gettop(lua_));
    lua_pop(lua_, 1);
    for (const auto& one : said) all.emplace_back(one[0].get<std::string>(), one[1].get<std::string>());
    lua_newtable(lua_);
    lua_setglobal(lua_, "redis_said");
    return all;
  }

  All copy() {
    lua_getglobal(lua_, "redis_copy");
    lua_getglobal(lua_, "redis_all");
    lua_call(lua_, 1, 1);
    return luaL_ref(lua_, LUA_REGISTRYINDEX);
  }
  void go_back_to(All all) {
    lua_getglobal(lua_, "redis_copy");
    lua_rawgeti(lua_, LUA_REGISTRYINDEX, all);
    lua_call(lua_, 1, 1);
    lua_setglobal(lua_, "redis_all");
  }
  void forget(const std::string& name) {
    lua_getglobal(lua_, "redis_all");
    lua_pushnil(lua_);
    lua_setfield(lua_, -2, name.c_str());
    lua_pop(lua_, 1);
  }
  void flush() {
    lua_newtable(lua_);
    lua_setglobal(lua_, "redis_all");
  }

 private:
  static int pack(lua_State* lua) {
    const auto bytes = nlohmann::json::to_msgpack(json_of(lua, 1));
    lua_pushlstring(lua, reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return 1;
  }
  static int unpack(lua_State* lua) {
    size_t length = 0;
    const char* text = luaL_checklstring(lua, 1, &length);
    push_json(lua, nlohmann::json::from_msgpack(text, text + length));
    return 1;
  }
  void set(const char* name, const std::vector<std::string>& words) {
    lua_newtable(lua_);
    for (size_t i = 0; i < words.size(); ++i) {
      lua_pushlstring(lua_, words[i].data(), words[i].size());
      lua_rawseti(lua_, -2, static_cast<int>(i) + 1);
    }
    lua_setglobal(lua_, name);
  }

  lua_State* lua_;
  int scripts_[kBooksScripts]{};
};

}  // namespace tally::test
