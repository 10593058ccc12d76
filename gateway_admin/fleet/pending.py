"""How many changes wait for a publish: the number beside *Publish* on every page.

Rendering a draft of 100 deployments takes some 20 ms of the processor, too much for each
page. So the count is remembered under a stamp of the rows: one query that PostgreSQL
answers in about a millisecond, and that differs whenever any row of the draft does.
"""

from django.core.cache import cache
from django.db import connection

from gateway_admin.catalog.models import Environment
from gateway_admin.fleet.diff import diff_documents
from gateway_admin.fleet.documents import render
from gateway_admin.fleet.models import Revision
from proxy.contract import document_digest

# A price may come into force by itself, without any row changing: look again after this.
REMEMBERED_S = 60

# Whole rows as text: a column that is added later is part of the stamp by itself.
_STAMP = """
SELECT md5(concat_ws('|',
    (SELECT e::text FROM catalog_environment e WHERE e.id = %(id)s),
    (SELECT string_agg(d::text, '' ORDER BY d.id) FROM catalog_deployment d
        WHERE d.environment_id = %(id)s),
    (SELECT string_agg(c::text, '' ORDER BY c.id) FROM catalog_credential c
        WHERE c.environment_id = %(id)s),
    (SELECT string_agg(p.id::text, '' ORDER BY p.id) FROM catalog_price p
        JOIN catalog_deployment d ON d.id = p.deployment_id WHERE d.environment_id = %(id)s),
    (SELECT string_agg(a::text, '' ORDER BY a.id) FROM catalog_modelalias a
        WHERE a.environment_id = %(id)s),
    (SELECT string_agg(f::text || s::text, '' ORDER BY s.id) FROM catalog_fallbackchain f
        JOIN catalog_chaintarget s ON s.chain_id = f.id WHERE f.environment_id = %(id)s),
    (SELECT string_agg(m::text, '' ORDER BY m.id) FROM catalog_model m),
    (SELECT string_agg(p::text, '' ORDER BY p.id) FROM catalog_provider p),
    (SELECT max(r.number)::text FROM fleet_revision r WHERE r.environment_id = %(id)s)
))
"""


def pending_count(environment: Environment) -> int:
    """How many changes a publish would make now."""
    name = f"pending:{environment.pk}:{_stamp(environment)}"
    remembered: int | None = cache.get(name)
    if remembered is None:
        remembered = _count(environment)
        cache.set(name, remembered, timeout=REMEMBERED_S)
    return remembered


def _count(environment: Environment) -> int:
    newest = Revision.objects.filter(environment=environment).order_by("-number")
    active = newest.only("id", "digest").first()
    document = render(environment)
    if active is None:
        return len(diff_documents(None, document))
    if active.digest == document_digest(document):
        return 0
    return len(diff_documents(active.document, document))


def _stamp(environment: Environment) -> str:
    with connection.cursor() as cursor:
        cursor.execute(_STAMP, {"id": environment.pk})
        stamp: str = cursor.fetchone()[0]
    return stamp
