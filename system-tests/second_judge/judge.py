"""A second opinion on what IAM allows: LocalEmu's evaluator judges permissions that the local cloud judged.

Standard input is JSON: `policies`, by the ARN of a user or role (`identity`: a list of documents,
`boundary`: a document or null), and `uses`, as `/_local-cloud/uses` reports them. Standard output is JSON:
how many were judged, allowed and denied, and the uses on which the two disagree, each with its decision.
"""

import json
import logging
import sys

from localemu.services.iam_enforcement import evaluator
from localemu.services.iam_enforcement.identity import CallerIdentity

# It warns about operators that it does not know; then it denies, and that is seen.
logging.disable(logging.CRITICAL)


def main():
    question = json.load(sys.stdin)
    policies = question["policies"]
    # LocalEmu looks policies up in its own cloud. Here they are given.
    evaluator.get_identity_policies = lambda caller: policies[caller.arn]["identity"]
    evaluator.get_permission_boundary = lambda caller: policies[caller.arn]["boundary"]
    evaluator.get_session_policies = lambda caller: []
    judge = evaluator.PolicyEvaluator()
    counts = {"judged": 0, "allowed": 0, "denied": 0}
    disagreements = []
    for use in question["uses"]:
        arn = use["principal"]
        kind, _, name = arn.rpartition(":")[2].partition("/")
        caller = CallerIdentity(
            principal_type="User" if kind == "user" else "AssumedRole",
            account_id=arn.split(":")[4],
            arn=arn,
            username=name,
        )
        context = dict(use["context"])
        if kind == "user":
            context["aws:username"] = name
        tags = [key.partition("/")[2] for key in context if key.startswith("aws:RequestTag/")]
        if tags:
            context["aws:TagKeys"] = tags
        decision = judge.evaluate(caller, use["action"], use["resource"], context)
        is_allowed = decision is evaluator.Decision.ALLOW
        counts["judged"] += 1
        counts["allowed" if is_allowed else "denied"] += 1
        if is_allowed != (use["decision"] == "allowed"):
            disagreements.append({**use, "second": decision.value})
    json.dump({**counts, "disagreements": disagreements}, sys.stdout)


main()
