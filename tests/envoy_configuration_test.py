#!/usr/bin/env python3
"""The configurations for Envoy in conf/envoy, held against the rules beside them: envoy_configuration_test.py TALLYD

Envoy itself does not run here. What can be wrong between the two files is looked at: each list of actions makes a descriptor that a rule
matches, each rule is matched by one, and the cluster leads to where tallyd listens.
"""
import copy
import json
import pathlib
import subprocess
import sys
import unittest

try:
    import yaml
except ImportError:  # Debian's packages are this one's, whatever python3 comes first
    if sys.executable == "/usr/bin/python3":
        raise SystemExit("python3-yaml is not installed (Debian: apt-get install python3-yaml)")
    sys.exit(subprocess.run(["/usr/bin/python3", *sys.argv]).returncode)

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "conf" / "envoy"
FILES = ["envoy.yaml", "envoy-fail-closed.yaml"]
TALLYD = None


def load(name):
    return yaml.safe_load((FOLDER / name).read_text())


def manager(envoy):
    [listener] = envoy["static_resources"]["listeners"]
    [chain] = listener["filter_chains"]
    [network_filter] = chain["filters"]
    return network_filter["typed_config"]


def rate_limit_filter(envoy):
    filters = [one["typed_config"] for one in manager(envoy)["http_filters"] if one["name"] == "envoy.filters.http.ratelimit"]
    [config] = filters
    return config


def cluster(envoy, name):
    [found] = [one for one in envoy["static_resources"]["clusters"] if one["name"] == name]
    return found


def entry(action):
    """(key, value) that an action makes; value None: it comes from the request."""
    [(kind, about)] = action.items()
    if kind == "remote_address":
        return "remote_address", None
    if kind == "request_headers":
        return about["descriptor_key"], None
    if kind == "generic_key":
        return about.get("descriptor_key", "generic_key"), about["descriptor_value"]
    raise AssertionError(f"what does {kind} make?")


def descriptors(envoy):
    found = []
    for host in manager(envoy)["route_config"]["virtual_hosts"]:
        for place in [host] + [route["route"] for route in host["routes"]]:
            found += [[entry(action) for action in limit["actions"]] for limit in place.get("rate_limits", [])]
    return found


def rules():
    done = subprocess.run([TALLYD, "--print-config", "-c", FOLDER / "tallyd.json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)


def matches(rule, domain, made):
    wanted = rule["match"]
    return wanted["domain"] == domain and len(wanted["descriptors"]) == len(made) and all(
        one["key"] == key and (one.get("value") is None or one["value"] == value) for one, (key, value) in zip(wanted["descriptors"], made))


def disagreements(envoy, tallyd):
    domain, made = rate_limit_filter(envoy)["domain"], descriptors(envoy)
    wrong = [f"no rule matches {one}" for one in made if not any(matches(rule, domain, one) for rule in tallyd["rules"])]
    return wrong + [f"nothing asks {rule['name']}" for rule in tallyd["rules"] if not any(matches(rule, domain, one) for one in made)]


class Configurations(unittest.TestCase):
    def test_the_rules_are_fine_by_tallyds_own_check(self):
        done = subprocess.run([TALLYD, "--check", "-c", FOLDER / "tallyd.json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_actions_and_rules_agree(self):
        for name in FILES:
            with self.subTest(name):
                self.assertEqual(len(descriptors(load(name))), 3)
                self.assertEqual(disagreements(load(name), rules()), [])

    def test_a_disagreement_would_be_found(self):
        envoy, tallyd = load("envoy.yaml"), rules()
        renamed = copy.deepcopy(tallyd)
        renamed["rules"][0]["match"]["descriptors"][0]["key"] = "address"
        self.assertEqual(len(disagreements(envoy, renamed)), 2)
        other = copy.deepcopy(envoy)
        rate_limit_filter(other)["domain"] = "other"
        self.assertEqual(len(disagreements(other, tallyd)), 6)
        valued = copy.deepcopy(tallyd)
        for rule in valued["rules"]:
            if rule["name"] == "login":
                rule["match"]["descriptors"][0]["value"] = "logout"
        self.assertEqual(len(disagreements(envoy, valued)), 2)

    def test_routes_with_limits_of_their_own_keep_those_of_their_host(self):
        for name in FILES:
            for host in manager(load(name))["route_config"]["virtual_hosts"]:
                for route in host["routes"]:
                    self.assertTrue("rate_limits" not in route["route"] or route["route"]["include_vh_rate_limits"], route)

    def test_routes_are_chosen_by_normalised_paths(self):
        for name in FILES:
            with self.subTest(name):
                config = manager(load(name))
                self.assertTrue(any("path" in route["match"] for host in config["route_config"]["virtual_hosts"] for route in host["routes"]))
                self.assertEqual((config.get("normalize_path"), config.get("merge_slashes"), config.get("path_with_escaped_slashes_action")),
                                 (True, True, "UNESCAPE_AND_REDIRECT"))

    def test_the_cluster_speaks_http_2_to_where_tallyd_listens(self):
        for name in FILES:
            with self.subTest(name):
                envoy = load(name)
                service = rate_limit_filter(envoy)["rate_limit_service"]
                self.assertEqual(service["transport_api_version"], "V3")
                there = cluster(envoy, service["grpc_service"]["envoy_grpc"]["cluster_name"])
                [options] = there["typed_extension_protocol_options"].values()
                self.assertIn("http2_protocol_options", options["explicit_http_config"])
                [locality] = there["load_assignment"]["endpoints"]
                [endpoint] = locality["lb_endpoints"]
                path = endpoint["endpoint"]["address"]["pipe"]["path"]
                self.assertIn(f"unix:{path}?mode=0660", rules()["listen"]["rls"])

    def test_envoy_waits_longer_than_any_rule(self):
        for name in FILES:
            seconds = float(rate_limit_filter(load(name))["timeout"].removesuffix("s"))
            for rule in rules()["rules"]:
                self.assertTrue(rule["wait"].endswith("ms"), rule)
                self.assertGreater(seconds * 1000, float(rule["wait"].removesuffix("ms")))

    def test_the_two_differ_in_what_happens_when_tallyd_is_away_and_in_nothing_else(self):
        opened, closed = load(FILES[0]), load(FILES[1])
        self.assertIs(rate_limit_filter(opened).pop("failure_mode_deny"), False)
        self.assertIs(rate_limit_filter(closed).pop("failure_mode_deny"), True)
        self.assertEqual(rate_limit_filter(closed).pop("status_on_error"), {"code": "ServiceUnavailable"})
        self.assertEqual(opened, closed)


if __name__ == "__main__":
    TALLYD = sys.argv.pop(1)
    unittest.main()
