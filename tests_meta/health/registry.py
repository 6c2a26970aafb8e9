"""All mutations: the modules that register them, and the tests of the phases that none of them can fail."""

from __future__ import annotations

from tests_meta.health import access, evidence, forge, harmless, host, polling, quiet, recipes
from tests_meta.health.mutation import REGISTRY, Mutation

MODULES = (access, forge, recipes, evidence, polling, host, quiet, harmless)
MUTATIONS: tuple[Mutation, ...] = tuple(REGISTRY.values())

ABOUT_THE_RUN = "about what this run itself wrote, and a run that writes nothing cannot fail it"
# Tests of the phases that no state of the world makes a health check fail, with the reason.
NOT_FAILED_BY_A_WORLD = {
    "test_gate": "sums up its phase",
    "test_the_baseline_is_complete": "only an apply demands of the baseline what a deploy will be compared with",
    "test_nothing_was_written": ABOUT_THE_RUN,
    "test_no_pull_request_was_opened": ABOUT_THE_RUN,
    "test_open_pull_requests_are_untouched": ABOUT_THE_RUN,
    "test_pull_requests_left_to_people_are_untouched": ABOUT_THE_RUN,
    "test_its_proposal_was_one_commit": ABOUT_THE_RUN,
    "test_its_verdict_covers_these_tests": ABOUT_THE_RUN,
    "test_the_order_of_what_was_polled_is_kept": ABOUT_THE_RUN,
    "test_only_that_value_was_changed": ABOUT_THE_RUN,
    "test_its_green_is_not_stale_for_long": "its worlds are those of tests_meta/verdicts",
    "test_its_retest_reported_in_time": "about the retests of --testme",
    "test_a_wrong_clock_is_reported": "asserts that there is a finding, which names the mutation",
    "test_another_running_system_is_reported": "asserts that there is a finding, which names the mutation",
    "test_it_is_covered_before_it_is_polled": "phase 2 fails first, and excludes the recipe",
    "test_a_new_bridge_polls_the_new_set": "only a deploy replaces the bridge",
    "test_the_configuration_is_this_hosts": "only an apply evaluates the configuration",
    "test_the_running_system_is_the_built_one": "only an apply builds the system",
}
