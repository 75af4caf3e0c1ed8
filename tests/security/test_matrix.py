"""Who tries what, and what comes of it: one table, a row a test.

The rows themselves are functions in tests/support/rows_*.py: each is given an empty directory.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import rows_descriptors as descriptors
import rows_endless as endless
import rows_floods as floods
import rows_hostile as hostile
import rows_ids as ids
import rows_keys as keys
import rows_output as output
import rows_tenants as tenants
import rows_words as words

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROWS = [
    pytest.param(keys.plain_client, id="plain client"),
    pytest.param(keys.unknown_client_key, id="unknown client key"),
    pytest.param(keys.wrong_server_key, id="wrong server key"),
    pytest.param(keys.revoked_key, id="revoked key on a live connection"),
    pytest.param(descriptors.revoked_in_a_flood, id="revoked while descriptors run out"),
    pytest.param(descriptors.local_flood, id="connections to a socket file"),
    pytest.param(tenants.foreign_job, id="tenant B cancels, reads, submits into A's job"),
    pytest.param(tenants.foreign_blob, id="another's blob: named, guessed, flooded, other bytes"),
    pytest.param(ids.chosen_ids, id="routing ids of another form"),
    pytest.param(ids.predicted_ids, id="the ids that libzmq makes up, held"),
    pytest.param(ids.stolen_routing_id, id="stolen routing id"),
    pytest.param(ids.stolen_node_id, id="stolen routing id of a node"),
    pytest.param(ids.many_handshakes, id="handshakes without end under one key"),
    pytest.param(output.foreign_topics, id='subscribe to "", a prefix, A\'s topic'),
    pytest.param(output.shifted_grants, id="a message where only subscriptions belong"),
    pytest.param(tenants.wrong_roles, id="client sends as node and node as client"),
    pytest.param(tenants.false_autoscaler, id="client says what only the autoscaler may"),
    pytest.param(hostile.mutated_frames, id="10,000 mutated frames"),
    pytest.param(hostile.huge_array, id="array header claiming 2^32"),
    pytest.param(hostile.ten_gigabytes, id="10 GB frame declared"),
    pytest.param(floods.many_ranges, id="as many ranges as may be, again and again"),
    pytest.param(floods.many_frames, id="messages of as many frames as may be"),
    pytest.param(floods.waiting_is_not_silence, id="who waits for a neighbour is not silent"),
    pytest.param(endless.endless_message, id="a message without an end"),
    pytest.param(endless.empty_parts, id="a message of very many empty parts"),
    pytest.param(endless.endless_together, id="many messages without an end, each a bit"),
    pytest.param(endless.endless_subscription, id="a subscription without an end"),
    pytest.param(endless.big_and_honest, id="much that ends"),
    pytest.param(tenants.replays, id="replayed submit and outcome"),
    pytest.param(keys.half_handshakes, id="slowloris and 2,000 half handshakes"),
    pytest.param(hostile.raw_connections, id="ten thousand raw connections"),
    pytest.param(hostile.never_reads, id="asks without end and never reads"),
    pytest.param(hostile.quotas, id="quotas per tenant"),
    pytest.param(output.topic_flood, id="topic flood"),
    pytest.param(tenants.flipped_byte, id="flipped byte in an outcome (never unpickled)"),
    pytest.param(
        hostile.pickle_bombs, id="pickle bombs in every field of scheduler and nodelet messages"
    ),
    pytest.param(words.evil_words, id="control characters in every word"),
    pytest.param(keys.join_tokens, id="expired and reused join token"),
    pytest.param(keys.loose_files, id="loose key file modes"),
]


@pytest.mark.parametrize("row", ROWS)
def test_row(row: Callable[[Path], None], tmp_path: Path) -> None:
    row(tmp_path)
