"""The rules of subjects as replicas fetch them: one query puts them into JSON.

A budget's and a limit's columns here are the fields of BudgetDocument and LimitDocument of
`proxy.contract`; a row of the outer query is one SubjectPolicy.
"""

import json
from collections.abc import Set
from typing import Any

from django.db import connection

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.policies import SubjectRef

_NAME = """
    CASE
        WHEN rule.is_default THEN 'each ' || rule.scope
        WHEN rule.scope = 'environment' THEN environment.name
        WHEN rule.scope = 'team' THEN team.name
        WHEN rule.scope = 'user' THEN COALESCE(NULLIF(person.name, ''), person.email)
        WHEN rule.scope = 'key' THEN key.name
        WHEN rule.scope = 'customer' THEN COALESCE(NULLIF(customer.name, ''), customer.reference)
        ELSE credential.name
    END
"""
_TARGETS = """
    JOIN catalog_environment environment ON environment.id = rule.environment_id
    LEFT JOIN keys_team team ON team.id = rule.team_id
    LEFT JOIN accounts_user person ON person.id = rule.user_id
    LEFT JOIN keys_virtualkey key ON key.id = rule.key_id
    LEFT JOIN keys_customer customer ON customer.id = rule.customer_id
    LEFT JOIN catalog_credential credential ON credential.id = rule.credential_id
    WHERE rule.environment_id = %(environment)s AND {condition}
    GROUP BY rule.scope, rule.subject
"""
_RULES = """
WITH budgets AS (
    SELECT rule.scope, rule.subject, min({name}) AS name, json_agg(json_build_object(
        'id', rule.id,
        'name', rule.name,
        'model', NULLIF(rule.model, ''),
        'limit_nano', (rule.limit_usd * 1000000000)::bigint,
        'period', rule.period,
        'rolling_hours', rule.rolling_hours,
        'soft_percent', rule.soft_percent,
        'override_nano', (override.limit_usd * 1000000000)::bigint,
        'override_until', to_char(
            override.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
        )
    ) ORDER BY rule.created_at, rule.id) AS rules
    FROM keys_budget rule
    LEFT JOIN keys_budgetoverride override
        ON override.budget_id = rule.id AND override.revoked_at IS NULL
    {targets}
), limits AS (
    SELECT rule.scope, rule.subject, min({name}) AS name, json_agg(json_build_object(
        'id', rule.id,
        'model', NULLIF(rule.model, ''),
        'rpm', rule.rpm,
        'tpm', rule.tpm,
        'parallel', rule.parallel
    ) ORDER BY rule.model) AS rules
    FROM keys_ratelimit rule
    {targets}
), blocks AS (
    SELECT DISTINCT ON (rule.scope, rule.subject)
        rule.scope, rule.subject, rule.reason,
        COALESCE(
            team.name, NULLIF(person.name, ''), person.email,
            NULLIF(customer.name, ''), customer.reference
        ) AS name
    FROM keys_block rule
    LEFT JOIN keys_team team ON team.id = rule.team_id
    LEFT JOIN accounts_user person ON person.id = rule.user_id
    LEFT JOIN keys_customer customer ON customer.id = rule.customer_id
    WHERE (rule.environment_id = %(environment)s OR rule.environment_id IS NULL) AND {condition}
    ORDER BY rule.scope, rule.subject, rule.environment_id NULLS LAST
)
SELECT
    COALESCE(json_agg(json_build_object(
        'scope', scope,
        'subject', subject,
        'name', COALESCE(blocks.name, budgets.name, limits.name),
        'blocked', blocks.reason,
        'budgets', COALESCE(budgets.rules, '[]'::json),
        'limits', COALESCE(limits.rules, '[]'::json)
    ) ORDER BY scope, subject), '[]'::json)::text,
    COALESCE(json_agg(json_build_array(scope, subject)), '[]'::json)::text
FROM budgets
FULL JOIN limits USING (scope, subject)
FULL JOIN blocks USING (scope, subject)
"""


def _query(condition: str) -> str:
    targets = _TARGETS.format(condition=condition)
    return _RULES.format(name=_NAME, targets=targets, condition=condition)


_ALL = _query("TRUE")
# The first two conditions are those that an index serves.
_SOME = _query(
    "rule.scope = ANY(%(scopes)s) AND rule.subject = ANY(%(subjects)s)"
    " AND (rule.scope, rule.subject) IN"
    " (SELECT * FROM unnest(%(scopes)s::text[], %(subjects)s::text[]))"
)


def all_rules(environment: Environment) -> str:
    """Every subject with a rule: a JSON list of SubjectPolicy."""
    return _read(_ALL, {"environment": environment.pk})[0]


def rules_of(environment: Environment, refs: Set[SubjectRef]) -> tuple[str, list[list[str]]]:
    """Present rules of these subjects, and those that have none any more."""
    if not refs:
        return "[]", []
    wanted = sorted(refs)
    scopes = [scope for scope, _ in wanted]
    subjects = [subject for _, subject in wanted]
    params = {"environment": environment.pk, "scopes": scopes, "subjects": subjects}
    document, found = _read(_SOME, params)
    present = {(scope, subject) for scope, subject in json.loads(found)}
    return document, [list(ref) for ref in wanted if ref not in present]


def _read(sql: str, params: dict[str, Any]) -> tuple[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        document, found = cursor.fetchone()
    return document, found
