#!/bin/bash
# Proves on an AWS account what only an account can prove, and writes a report. `make aws-acceptance`
# starts it; docs/aws-acceptance.md says what each check is for.
#
# It makes a stack of its own, breaks it, mends it and removes it. It touches nothing without that
# stack's tag or name. Run again after an interruption, it goes on with what has not passed yet.
#
# Two identities act. The deployer runs `bootstrap`, from the first deployment to `destroy`, with the policy
# that `iam-policy` prints and no other permission: a role that is made for this run or, because root cannot
# assume a role, a user. Your own credentials make and remove it, break things, and look.
#
# Each check is a function that runs in a shell of its own: its output is what was measured, and its
# exit code says what that means (0 passed, 3 cannot be told here, anything else failed).
#
# Checks, and what they repeat until it succeeds, are called by their names:
# shellcheck disable=SC2317
set -euo pipefail

: "${BOOTSTRAP:?}" "${ARTIFACTS:?}" "${AWS:?}"
export STACK=${STACK:-vigia-acceptance} ENDPOINT=${ENDPOINT:-} ARCH=${ARCH:-} N=${N:-}
export YES=${YES:-} KEEP=${KEEP:-} ONLY=${ONLY:-} ASKED=${ASKED:-} WORK=${WORK:-.acceptance}
readonly NOT_HERE=3
# From launch to serving. Research says 40 to 70 s; with less than 90 the reconciler's grace of three
# minutes is no brake.
readonly MAX_BOOT=90
# A boot, two silent ticks and the minute of the schedule.
readonly PATIENCE=300
# After a bucket's versioning is switched on for the first time, S3 may not find new objects for this long
# (S3 API reference, PutBucketVersioning).
readonly VERSIONING=900
# IAM's answers differ for some seconds after a change, rarely for a minute or two.
readonly PROPAGATION=180

say() { echo "$*" >&2; }
fail() { echo "$*"; exit 1; }
only_on_aws() { [ -z "$ENDPOINT" ] || { echo "only on AWS"; exit "$NOT_HERE"; }; }

# Without the deployer's session (it is not made yet, or cannot be made here) your own credentials are used.
vigia() {
  if [ -e "$DIR/session" ] || [ -e "$DIR/role" ]; then renew_session || return 4; fi
  (
    if [ -e "$DIR/session" ]; then
      read -r AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN _ < "$DIR/session"
      unset AWS_PROFILE
      export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
      if [ "$AWS_SESSION_TOKEN" = - ]; then unset AWS_SESSION_TOKEN; fi
    fi
    exec "$BOOTSTRAP" --stack "$STACK" --token-file "$DIR/token" --region "$REGION" \
      ${ENDPOINT:+--endpoint-url "$ENDPOINT"} "$@"
  )
}
# A session of a role lasts an hour: it is renewed before a long command could outlive it.
renew_session() {
  local key secret token until now
  now=$(date +%s)
  if [ -e "$DIR/session" ]; then
    read -r key secret token until < "$DIR/session"
    if [ "$until" = never ] || [ "$until" -gt $((now + 1800)) ]; then return; fi
  fi
  (umask 077 && : > "$DIR/session.new")
  read -r key secret token < <(aws sts assume-role --role-arn "$(cat "$DIR/role")" --role-session-name acceptance \
    --query 'Credentials.[AccessKeyId,SecretAccessKey,SessionToken]' 2> "$DIR/refused") || return 1
  echo "$key $secret $token $((now + 3600))" > "$DIR/session.new"
  mv "$DIR/session.new" "$DIR/session"
}
aws() { command "$AWS" --region "$REGION" ${ENDPOINT:+--endpoint-url "$ENDPOINT"} --output text "$@"; }
workers() { cat "$DIR/workers"; }
control() { echo "vigia-$STACK-control-$ACCOUNT-$REGION"; }
data() { echo "vigia-$STACK-data-$ACCOUNT-$REGION"; }

# A value of `status --json`, by a Python expression over `s`.
status() { vigia status --json | python3 -c "import json, re, sys; s = json.load(sys.stdin); print($1)"; }
code() { curl -s -o /dev/null -w '%{http_code}' --max-time 20 "$@" || true; }
# Repeats a command until it succeeds; how many seconds it took is what it prints.
within() {
  local limit=$1 since=$SECONDS
  shift
  until "$@"; do
    [ $((SECONDS - since)) -lt "$limit" ] || return 1
    sleep 1
  done
  echo $((SECONDS - since))
}
running() { # role
  aws ec2 describe-instances --filters "Name=tag:vigia:stack,Values=$STACK" "Name=tag:vigia:role,Values=$1" \
    Name=instance-state-name,Values=pending,running --query 'Reservations[].Instances[].InstanceId' | tr '\t' '\n'
}
serves() { # how many
  [ "$(status "s['desired'], s['healthy'], s['answers']" 2>/dev/null)" = "$1 $1 yes" ] \
    && [ "$(running worker | grep -c .)" = "$1" ]
}

# Whether a deployment with these options passes its own checks of permissions and quotas.
fits() { vigia preflight ${ARCH:+--arch "$ARCH"} "$@" > "$DIR/preflight" 2>&1; }

# --- Checks, in their order -----------------------------------------------------------------------
check_deployer() {
  local arn=arn:$PARTITION:iam::$ACCOUNT name=vigia-$STACK-deployer
  "$BOOTSTRAP" --stack "$STACK" --region "$REGION" iam-policy --account "$ACCOUNT" > "$DIR/deployer.json"
  # One of a run that was cut may have another version's policy.
  remove_deployer
  # A managed policy: one that is written into a user may have 2,048 characters.
  aws iam create-policy --policy-name "$name" --policy-document "file://$DIR/deployer.json" \
    --tags "Key=vigia:stack,Value=$STACK" >&2
  case $CALLER in
    *:root)
      aws iam create-user --user-name "$name" --tags "Key=vigia:stack,Value=$STACK" >&2
      aws iam attach-user-policy --user-name "$name" --policy-arn "$arn:policy/$name" >&2
      (umask 077 && aws iam create-access-key --user-name "$name" --query 'AccessKey.[AccessKeyId,SecretAccessKey]' \
        | while read -r key secret; do echo "$key $secret - never"; done > "$DIR/session.new")
      mv "$DIR/session.new" "$DIR/session"
      ;;
    *)
      printf '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"%s"},"Action":"sts:AssumeRole"}]}' \
        "$arn:root" > "$DIR/trust.json"
      aws iam create-role --role-name "$name" --assume-role-policy-document "file://$DIR/trust.json" \
        --tags "Key=vigia:stack,Value=$STACK" >&2
      aws iam attach-role-policy --role-name "$name" --policy-arn "$arn:policy/$name" >&2
      echo "$arn:role/$name" > "$DIR/role"
      within 60 renew_session > "$DIR/seconds" || fail "the role of the deployer cannot be assumed: $(cat "$DIR/refused")"
      ;;
  esac
  # A whole minute without an answer other than "wrong key": this endpoint knows no keys but its own.
  known() { ! { vigia preflight --workers 1 2>&1 || true; } | grep -Eq 'InvalidClientTokenId|InvalidAccessKeyId|UnrecognizedClient|access key or its secret is wrong'; }
  if ! within "$([ -n "$ENDPOINT" ] && echo 5 || echo 60)" known > "$DIR/seconds"; then
    [ -n "$ENDPOINT" ] || fail "the new access key is not known after a minute"
    remove_deployer
    echo "this endpoint knows no other keys than its own; everything runs with those"
    exit "$NOT_HERE"
  fi
  may() { fits --workers 1 || ! grep -q 'not allowed' "$DIR/preflight"; }
  within "$PROPAGATION" may > "$DIR/seconds" || fail "$(cat "$DIR/preflight")"
  echo "everything from here on runs as ${name}, after $(cat "$DIR/seconds") s: $(grep 'permissions' "$DIR/preflight" | head -n 1 | tr -s ' ')"
}

# As many workers as were asked for, else two, or one where the quota has room for one.
check_quota() {
  local n
  for n in ${N:-2 1}; do
    if fits --workers "$n"; then
      echo "$n" > "$DIR/workers"
      echo "$n workers: $(grep 'vCPU quota' "$DIR/preflight" | head -n 1 | tr -s ' ')"
      return
    fi
    say "$(cat "$DIR/preflight")"
  done
  fail "$(tail -n 4 "$DIR/preflight")"
}

check_deploy() {
  local since=$SECONDS
  vigia deploy --workers "$N" --artifacts "$ARTIFACTS" ${ARCH:+--arch "$ARCH"} >&2 || fail "deploy ended with $?"
  echo "$((SECONDS - since)) s, $(vigia url)"
}

# What S3 documents for new objects in a bucket whose versioning is new matters to people who sign up.
check_settled() {
  only_on_aws
  local made age
  made=$(aws s3api list-buckets --query "Buckets[?Name=='$(data)'].CreationDate")
  age=$(($(date +%s) - $(date -d "$made" +%s)))
  if [ "$age" -lt "$VERSIONING" ]; then sleep $((VERSIONING - age)); fi
  echo "the bucket of users is older than $((VERSIONING / 60)) minutes"
}

check_boot() {
  local boots
  boots=$(status "' '.join(m.group(1) for e in s['events'] for m in [re.search(r'serves, (\d+) s after its launch', e['text'])] if m)")
  [ -n "$boots" ] || fail "no event tells of a boot"
  for seconds in $boots; do [ "$seconds" -le "$MAX_BOOT" ] || fail "boots took $boots s"; done
  echo "$boots s"
}

check_again() {
  local said
  said=$(vigia deploy --artifacts "$ARTIFACTS" ${ARCH:+--arch "$ARCH"} 2>&1) || fail "deploy ended with $?: $said"
  say "$said"
  [[ $said == *"nothing changed"* ]] || fail "the second deployment changed something"
  echo "nothing changed"
}

# Passwords go by standard input: command lines are seen by everybody on this machine.
check_people() {
  local url name word jar
  url=$(vigia url) name=acceptance-$RANDOM$RANDOM word=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n') jar=$DIR/cookies
  send() { # path, password
    printf '{"login":"%s","password":"%s"}' "$name" "$2" \
      | code -X POST -H 'content-type: application/json' -c "$jar" --data-binary @- "$url/$1"
  }
  local codes
  codes="$(send signup "$word") $(send signup "$word") $(send signin "not-$word") $(send signin "$word")"
  codes="$codes $(code -b "$jar" "$url/protected") $(code "$url/protected") $(code "$url/list")"
  rm -f "$jar"
  [ "$codes" = "201 409 401 303 200 401 401" ] || fail "answers were $codes"
  echo "$codes"
}

check_conditions() {
  local bucket key=acceptance/conditions body=$DIR/body etag
  bucket=$(control)
  put() { printf %s "$1" > "$body"; aws s3api put-object --bucket "$bucket" --key "$key" --body "$body" "${@:2}" --query ETag; }
  refused() { if "$@" > "$DIR/refused" 2>&1; then return 1; else grep -Eq 'PreconditionFailed|412' "$DIR/refused"; fi; }
  aws s3api delete-object --bucket "$bucket" --key "$key" >&2
  etag=$(put one --if-none-match '*')
  refused put two --if-none-match '*' || fail "If-None-Match let a second write through: $(cat "$DIR/refused")"
  refused put two --if-match '"00000000000000000000000000000000"' || fail "If-Match let a wrong version through: $(cat "$DIR/refused")"
  put two --if-match "$etag" >&2 || fail "If-Match refused the right version"
  refused aws s3api delete-object --bucket "$bucket" --key "$key" --if-match "$etag" \
    || fail "a delete with a stale version was let through: $(cat "$DIR/refused")"
  aws s3api delete-object --bucket "$bucket" --key "$key" >&2
  echo "two writes and a delete refused with 412, the right one accepted"
}

check_checksums() {
  local bucket body=$DIR/body key sum
  bucket=$(control)
  printf hello > "$body"
  if aws s3api put-object --bucket "$bucket" --key acceptance/checksum --body "$body" \
    --checksum-sha256 "$(printf other | openssl dgst -sha256 -binary | base64)" > "$DIR/refused" 2>&1; then
    fail "S3 took an object whose checksum is wrong"
  fi
  key=$(aws s3api list-objects-v2 --bucket "$bucket" --prefix artifacts/ --query 'Contents[0].Key')
  sum=$(aws s3api head-object --bucket "$bucket" --key "$key" --checksum-mode ENABLED --query ChecksumSHA256)
  [ "$(echo "$sum" | base64 -d | od -An -v -tx1 | tr -d ' \n')" = "$(echo "$key" | cut -d/ -f2)" ] \
    || fail "S3 says $sum of $key"
  echo "a wrong one refused; that of $(basename "$key") is its key"
}

check_anonymous() {
  local url
  if [ -n "$ENDPOINT" ]; then url=$ENDPOINT/$(control); else url=https://$(control).s3.$REGION.amazonaws.com; fi
  local found
  found=$(code "$url/fleet/registry.json")
  [ "$found" = 403 ] || fail "an unsigned request got $found"
  echo "403"
}

check_plain_http() {
  only_on_aws
  local said
  if said=$(aws --endpoint-url "http://s3.$REGION.amazonaws.com" s3api head-bucket --bucket "$(data)" 2>&1); then
    fail "the bucket of users answers over plain HTTP"
  fi
  case $said in *403* | *Forbidden*) echo "403" ;; *) fail "$said" ;; esac
}

# AWS's own evaluation of the policies as they are attached: allowed and denied, one line each.
check_roles() {
  only_on_aws
  local partition wrong=0 asked=0
  partition=$(aws sts get-caller-identity --query Arn | cut -d: -f2)
  local d c ec2
  d=arn:$partition:s3:::$(data) c=arn:$partition:s3:::$(control) ec2=arn:$partition:ec2:$REGION:$ACCOUNT
  while read -r role expected action resource tag; do
    local decision
    decision=$(aws iam simulate-principal-policy --policy-source-arn "arn:$partition:iam::$ACCOUNT:role/vigia-$STACK-$role" \
      --action-names "$action" --resource-arns "$resource" \
      ${tag:+--context-entries "ContextKeyName=aws:ResourceTag/vigia:stack,ContextKeyValues=$tag,ContextKeyType=string"} \
      --query 'EvaluationResults[0].EvalDecision')
    asked=$((asked + 1))
    case $expected:$decision in
      yes:allowed | no:*Deny) ;;
      *) wrong=$((wrong + 1)); say "$role $action $resource $tag: $decision, expected $expected" ;;
    esac
  done <<TABLE
worker yes s3:GetObject $d/users/x
worker yes s3:PutObject $d/users/x
worker yes s3:DeleteObject $d/users/x
worker yes s3:ListBucket $d
worker yes s3:PutObject $c/desired-count
worker yes s3:GetObject $c/secrets/x
worker no s3:DeleteObject $d/throttle/x
worker no s3:PutObject $c/fleet/registry.json
worker no s3:GetObject $c/tls/x
worker no ec2:TerminateInstances $ec2:instance/i-1 $STACK
lb yes s3:GetObject $c/fleet/registry.json
lb no s3:GetObject $c/secrets/x
lb no s3:GetObject $d/users/x
lb no s3:PutObject $c/fleet/registry.json
reconciler yes s3:PutObject $c/fleet/state.json
reconciler yes ec2:TerminateInstances $ec2:instance/i-1 $STACK
reconciler no ec2:TerminateInstances $ec2:instance/i-1 another-stack
reconciler no ec2:TerminateInstances $ec2:instance/i-1
reconciler no s3:GetObject $d/users/x
reconciler no s3:GetObject $c/secrets/x
TABLE
  [ "$wrong" = 0 ] || fail "$wrong of $asked decisions are wrong; the log names them"
  echo "$asked decisions as expected"
}

check_instances() {
  local tokens public
  tokens=$(aws ec2 describe-instances --filters "Name=tag:vigia:stack,Values=$STACK" Name=instance-state-name,Values=running \
    --query 'Reservations[].Instances[].MetadataOptions.HttpTokens' | tr '\t' '\n' | sort -u)
  [ "$tokens" = required ] || fail "IMDS tokens are: $tokens"
  public=$(aws ec2 describe-instances --filters "Name=tag:vigia:stack,Values=$STACK" Name=tag:vigia:role,Values=worker \
    Name=instance-state-name,Values=running --query 'Reservations[].Instances[].PublicIpAddress' | grep -v '^None$' || true)
  [ -z "$public" ] || fail "workers have public addresses: $public"
  echo "IMDSv2 required, no worker has a public address"
}

check_console() {
  local id latest=(--latest)
  id=$(running worker | head -n 1)
  [ -z "$ENDPOINT" ] || latest=()
  shows() { [[ "$(aws ec2 get-console-output --instance-id "$id" "${latest[@]}" --query Output 2>/dev/null)" == *"vigia: fetching"* ]]; }
  within "$PATIENCE" shows > "$DIR/seconds" || fail "the console of $id does not tell of the boot"
  echo "the boot is on the console of $id"
}

# From its private subnets the function reaches EC2 (IPv6) and S3 (gateway): without either it holds back.
check_reach() {
  settled() { [ "$(status "s['held'] == [] and s['problem'] is None" 2>/dev/null)" = True ]; }
  within 120 settled > "$DIR/seconds" || fail "held back: $(status "s['held']")"
  echo "nothing is held back"
}

check_drift() {
  local drift
  drift=$(status "s.get('drift')")
  [ "$drift" != None ] || { echo "this bootstrap does not look"; exit "$NOT_HERE"; }
  [ "$drift" = '[]' ] || fail "$drift"
  echo "none"
}

check_doctor() {
  local said rc=0
  vigia doctor --help > /dev/null 2>&1 || { echo "this bootstrap has no doctor"; exit "$NOT_HERE"; }
  said=$(vigia doctor 2>&1) || rc=$?
  say "$said"
  [ "$rc" = 0 ] || fail "doctor ended with $rc: $(echo "$said" | tail -n 3)"
  echo "nothing to mend"
}

check_cadence() {
  local since=$SECONDS last='' tick ticks=0 at=$SECONDS longest=0
  while [ $((SECONDS - since)) -lt 240 ]; do
    tick=$(status "s['last_tick']")
    if [ "$tick" != "$last" ]; then
      if [ -n "$last" ]; then
        ticks=$((ticks + 1))
        if [ $((SECONDS - at)) -gt "$longest" ]; then longest=$((SECONDS - at)); fi
      fi
      last=$tick at=$SECONDS
    fi
    sleep 1
  done
  if [ "$ticks" -lt 11 ] || [ "$longest" -gt 30 ]; then fail "$ticks ticks in 240 s, the longest pause $longest s"; fi
  echo "$ticks ticks in 240 s, the longest pause $longest s"
}

check_logs() {
  local group=/aws/lambda/vigia-$STACK-reconciler lines days
  lines=$(aws logs filter-log-events --log-group-name "$group" --limit 50 --query 'length(events)')
  days=$(aws logs describe-log-groups --log-group-name-prefix "$group" --query 'logGroups[0].retentionInDays')
  if [ "$lines" = 0 ] || [ "$days" != 14 ]; then fail "$lines lines, kept for $days days"; fi
  if vigia logs --help > /dev/null 2>&1; then
    local of said
    for of in worker lb reconciler; do
      said=$(vigia logs "$of" 2>&1) || fail "logs $of: $said"
      [ -n "$said" ] || fail "logs $of prints nothing"
    done
  fi
  echo "kept for $days days, and readable without ssh"
}

check_function() {
  local role arch versions
  role=$(aws lambda get-function-configuration --function-name "vigia-$STACK-reconciler" --query Role)
  arch=$(aws lambda get-function-configuration --function-name "vigia-$STACK-reconciler" --query 'Architectures[0]')
  versions=$(aws lambda list-versions-by-function --function-name "vigia-$STACK-reconciler" --query 'length(Versions)')
  [ "$versions" = 1 ] || fail "$versions versions"
  case $role in *":role/vigia-$STACK-reconciler") ;; *) fail "its role is $role" ;; esac
  echo "$arch, its own role, no version but the latest"
}

check_account() {
  only_on_aws
  echo "concurrent executions: $(aws lambda get-account-settings --query 'AccountLimit.[ConcurrentExecutions,UnreservedConcurrentExecutions]' | tr '\t' ' ') unreserved"
}

check_tags() {
  only_on_aws
  local count
  count=$(aws resourcegroupstaggingapi get-resources --tag-filters "Key=vigia:stack,Values=$STACK" --query 'length(ResourceTagMappingList)')
  [ "$count" -ge 15 ] || fail "only $count resources have the stack's tag"
  echo "$count resources"
}

check_scale() {
  local up down
  fits --workers $((N + 1)) || { echo "the quota has no room for $((N + 1)) workers"; exit "$NOT_HERE"; }
  vigia scale $((N + 1)) >&2
  up=$(within "$PATIENCE" serves $((N + 1))) || fail "not $((N + 1)) workers within $PATIENCE s"
  vigia scale "$N" >&2
  down=$(within "$PATIENCE" serves "$N") || fail "not $N workers within $PATIENCE s"
  echo "up in $up s, down in $down s"
}

# Asks five times a second until the file is gone; what was not answered with 200 is written down.
poll() { # url, file
  while [ -e "$2" ]; do
    local got
    got=$(code "$1/healthcheck")
    echo "$got" >> "$2.all"
    if [ "$got" != 200 ]; then echo "$(date -u +%T) $got" >> "$2.bad"; fi
    sleep 0.2
  done
}
polled() { # command: runs it while somebody asks
  local flag=$DIR/polling url poller rc=0
  url=$(vigia url)
  rm -f "$flag" "$flag.all" "$flag.bad"
  touch "$flag" "$flag.all" "$flag.bad"
  poll "$url" "$flag" &
  poller=$!
  "$@" || rc=$?
  rm -f "$flag"
  wait "$poller"
  return "$rc"
}
lost() { echo "$(wc -l < "$DIR/polling.bad") of $(wc -l < "$DIR/polling.all") requests failed"; }

check_heal() {
  local victim seconds
  victim=$(running worker | head -n 1)
  heal() {
    aws ec2 terminate-instances --instance-ids "$victim" >&2
    whole() { [[ "$(running worker)" != *"$victim"* ]] && serves "$N"; }
    within "$PATIENCE" whole > "$DIR/seconds"
  }
  polled heal || fail "$victim is not replaced within $PATIENCE s"
  seconds=$(cat "$DIR/seconds")
  [ "$N" = 1 ] || [ ! -s "$DIR/polling.bad" ] || fail "whole again after $seconds s, but $(lost)"
  echo "whole again after $seconds s; $(lost)"
}

check_rollout() {
  local seconds
  rollout() {
    vigia deploy --artifacts "$ARTIFACTS" ${ARCH:+--arch "$ARCH"} --min-password $((9 + RANDOM % 20)) >&2
    complete() { [ "$(status "s['rollout'] is None" 2>/dev/null)" = True ] && serves "$N"; }
    within 1200 complete > "$DIR/seconds"
  }
  polled rollout || fail "not every worker is of the new release within 20 minutes"
  seconds=$(cat "$DIR/seconds")
  # One worker, and no room for a second one: nobody serves while it is replaced.
  [ "$N" = 1 ] || [ ! -s "$DIR/polling.bad" ] || fail "complete after $seconds s, but $(lost)"
  echo "complete $seconds s after the deployment; $(lost)"
}

check_address() {
  local victim url before seconds
  victim=$(running lb | head -n 1)
  url=$(vigia url)
  aws ec2 terminate-instances --instance-ids "$victim" >&2
  before=$SECONDS
  gone() { [ "$(code --max-time 2 "$url/healthcheck")" != 200 ]; }
  within "$PATIENCE" gone > "$DIR/seconds" || fail "the address still answers $PATIENCE s after $victim was terminated"
  back() { [ "$(code "$url/healthcheck")" = 200 ]; }
  within 600 back > "$DIR/seconds" || fail "the address does not answer within 600 s"
  seconds=$(cat "$DIR/seconds")
  [ "$(vigia url)" = "$url" ] || fail "the address is another one"
  echo "silent for $seconds s, answering $((SECONDS - before)) s after the termination, at the same address"
}

check_spot() {
  only_on_aws
  [[ "$(vigia deploy --help)" == *--spot* ]] || { echo "this bootstrap has no --spot"; exit "$NOT_HERE"; }
  fits --spot || { echo "the quota of spot vCPUs has no room"; exit "$NOT_HERE"; }
  vigia deploy --artifacts "$ARTIFACTS" ${ARCH:+--arch "$ARCH"} --spot >&2
  complete() { [ "$(status "s['rollout'] is None" 2>/dev/null)" = True ] && serves "$N"; }
  local seconds kinds
  seconds=$(within 1200 complete) || fail "not every worker is a spot instance within 20 minutes"
  kinds=$(aws ec2 describe-instances --filters "Name=tag:vigia:stack,Values=$STACK" Name=tag:vigia:role,Values=worker \
    Name=instance-state-name,Values=running --query 'Reservations[].Instances[].InstanceLifecycle' | tr '\t' '\n' | sort -u)
  [ "$kinds" = spot ] || fail "workers are: $kinds"
  echo "all workers are spot instances after $seconds s"
}

check_destroy() {
  local since=$SECONDS
  vigia destroy --yes >&2 || fail "destroy ended with $? after $((SECONDS - since)) s"
  echo "$((SECONDS - since)) s"
}

check_destroy_again() {
  local said
  said=$(vigia destroy --yes 2>&1) || fail "destroy ended with $?: $said"
  say "$said"
  [[ $said == *"nothing to remove"* ]] || fail "the second destroy found something"
  echo "nothing to remove"
}

remove_deployer() {
  local arn=arn:$PARTITION:iam::$ACCOUNT name=vigia-$STACK-deployer key
  gone() { "$@" > "$DIR/refused" 2>&1 || grep -q NoSuchEntity "$DIR/refused" || fail "$(cat "$DIR/refused")"; }
  for key in $(aws iam list-access-keys --user-name "$name" --query 'AccessKeyMetadata[].AccessKeyId' 2> /dev/null || true); do
    gone aws iam delete-access-key --user-name "$name" --access-key-id "$key"
  done
  gone aws iam detach-user-policy --user-name "$name" --policy-arn "$arn:policy/$name"
  gone aws iam delete-user --user-name "$name"
  gone aws iam detach-role-policy --role-name "$name" --policy-arn "$arn:policy/$name"
  gone aws iam delete-role --role-name "$name"
  gone aws iam delete-policy --policy-arn "$arn:policy/$name"
  rm -f "$DIR/session" "$DIR/role"
}
check_deployer_removed() {
  remove_deployer
  echo "role, user, keys and policy"
}

check_nothing_left() {
  local left='' tag="Name=tag:vigia:stack,Values=$STACK"
  local ours="^(/aws/lambda/)?vigia-$STACK-(worker|lb|reconcile|data|control|deployer)"
  there() { # what, command
    local what=$1 found
    shift
    found=$("$@") || fail "cannot look for $what"
    # Names of other stacks may begin as ours does.
    found=$(echo "$found" | tr '\t' '\n' | grep -E "$ours|^[a-z]+-[0-9a-f]+$" | tr '\n' ' ' || true)
    if [ -n "$found" ]; then left="$left $what: $found"; fi
  }
  there instances aws ec2 describe-instances --filters "$tag" Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down --query 'Reservations[].Instances[].InstanceId'
  there volumes aws ec2 describe-volumes --filters "$tag" --query 'Volumes[].VolumeId'
  there addresses aws ec2 describe-addresses --filters "$tag" --query 'Addresses[].AllocationId'
  there networks aws ec2 describe-vpcs --filters "$tag" --query 'Vpcs[].VpcId'
  there subnets aws ec2 describe-subnets --filters "$tag" --query 'Subnets[].SubnetId'
  there groups aws ec2 describe-security-groups --filters "$tag" --query 'SecurityGroups[].GroupId'
  there gateways aws ec2 describe-internet-gateways --filters "$tag" --query 'InternetGateways[].InternetGatewayId'
  there interfaces aws ec2 describe-network-interfaces --filters "Name=description,Values=*vigia-$STACK-reconciler*" --query 'NetworkInterfaces[].NetworkInterfaceId'
  there functions aws lambda list-functions --query "Functions[?starts_with(FunctionName, 'vigia-$STACK-')].FunctionName"
  there rules aws events list-rules --name-prefix "vigia-$STACK-" --query 'Rules[].Name'
  there logs aws logs describe-log-groups --log-group-name-prefix "/aws/lambda/vigia-$STACK-" --query 'logGroups[].logGroupName'
  there roles aws iam list-roles --query "Roles[?starts_with(RoleName, 'vigia-$STACK-')].RoleName"
  there users aws iam list-users --query "Users[?starts_with(UserName, 'vigia-$STACK-')].UserName"
  there policies aws iam list-policies --scope Local --query "Policies[?starts_with(PolicyName, 'vigia-$STACK-')].PolicyName"
  there profiles aws iam list-instance-profiles --query "InstanceProfiles[?starts_with(InstanceProfileName, 'vigia-$STACK-')].InstanceProfileName"
  there buckets aws s3api list-buckets --query "Buckets[?starts_with(Name, 'vigia-$STACK-')].Name"
  [ -z "$left" ] || fail "left:$left"
  echo "16 kinds looked through"
}

# One check in a shell of its own, in which an error ends it.
if [ "${1:-}" = check ]; then
  "check_$2"
  exit
fi

# --- The run --------------------------------------------------------------------------------------
# name|what|minutes, as a rule
readonly CHECKS='deployer|a role or a user with the printed policy and nothing else is the deployer|1
quota|the account has room for the stack|0
deploy|a new stack answers|6
boot|a worker serves within 90 s of its launch|0
again|a second deployment changes nothing|1
checksums|S3 refuses a wrong checksum and keeps the right one|0
conditions|S3 keeps the conditions of writes and deletes|0
anonymous|an unsigned request reads nothing|0
plain_http|buckets refuse plain HTTP|0
roles|each role may do its work and no more|1
instances|instances want IMDSv2; workers have no public address|0
console|the console tells of the boot|1
reach|the function reaches EC2 and S3 from its private subnets|1
drift|nothing differs from what was deployed|0
doctor|the doctor finds nothing to mend|1
cadence|ticks come every 20 s|4
logs|the logs of all three are there|1
function|the function is as it should be|0
account|limits of this account|0
tags|everything has the tag for the bill|0
settled|S3 is past the first 15 minutes of versioning|5
people|people sign up and in|0
scale|one worker more, one worker less|4
heal|a terminated worker is replaced, and nobody notices|2
rollout|a new release replaces all workers, and nobody notices|7
address|a terminated load balancer is replaced at the same address|4
spot|workers can be spot instances|7'
readonly LAST='destroy|the stack is removed|10
destroy_again|a second destroy finds nothing|0
deployer_removed|the deployer of this run is removed|0
nothing_left|nothing of the stack is left|1'

minutes() { echo "$CHECKS"$'\n'"$LAST" | awk -F'|' '{ all += $3 } END { print all }'; }
die() { say "error: $1"; say "  $2"; exit "$3"; }

case $STACK in
  vigia-acceptance*) ;;
  *) die "the stack of an acceptance run is called vigia-acceptance…, and \`$STACK\` is not" \
    "It is broken on purpose and removed: leave STACK= out, or give for example STACK=vigia-acceptance-2." 2 ;;
esac
case $ONLY in
  *[[:space:]]*) die "ONLY= has a space" "Put commas between the names of checks, for example ONLY=cadence,heal" 2 ;;
esac
known=$(cut -d'|' -f1 <<< "$CHECKS" | paste -sd ' ')
IFS=, read -ra only <<< "$ONLY"
for name in "${only[@]}"; do
  [[ " $known " == *" $name "* ]] || die "there is no check \`$name\`" "ONLY= takes names with commas between them, of: $known" 2
done
if [ -n "$ENDPOINT" ]; then
  unset AWS_PROFILE AWS_SESSION_TOKEN
  export AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID:-test} AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY:-test}
  REGION=${REGION:-us-east-1}
else
  REGION=${REGION:-${AWS_REGION:-${AWS_DEFAULT_REGION:-$("$AWS" configure get region || true)}}}
fi
[ -n "$REGION" ] || die "no AWS region is set" "Add REGION=…, or run \`aws configure\`." 2
export REGION
if ! CALLER=$(aws sts get-caller-identity --query Arn 2>&1); then
  case $CALLER in
    *"Could not connect"*) die "$(echo "$CALLER" | tail -n 1)" "Check network and region; \`make local\` starts the local cloud." 7 ;;
  esac
  die "no AWS credentials that work: $(echo "$CALLER" | tail -n 1)" \
    "Run \`aws configure\`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; ENDPOINT=… runs against the local cloud." 4
fi
export CALLER
PARTITION=$(echo "$CALLER" | cut -d: -f2)
ACCOUNT=$(echo "$CALLER" | cut -d: -f5)
export PARTITION ACCOUNT
export DIR="$WORK/$STACK-$ACCOUNT-$REGION${ENDPOINT:+-endpoint}"
export LOG=$DIR/log
readonly RESULTS=$DIR/results REPORT=$DIR/report.md

is_over() { grep -q '^nothing_left|passed|' "$RESULTS" 2>/dev/null; }
if is_over; then mv "$DIR" "$DIR-$(date -u +%Y%m%dT%H%M%S)"; fi
if [ ! -e "$DIR/ours" ] && aws s3api head-bucket --bucket "$(control)" > /dev/null 2>&1; then
  die "there is a stack $STACK in account $ACCOUNT, region $REGION, and this run has not made it" \
    "Remove it (\`make destroy STACK=$STACK\`) or choose another name that begins with vigia-acceptance." 2
fi

if [ -z "$YES$ASKED" ]; then
  [ -t 0 ] || die "this makes a stack that costs money, and nobody can be asked" "Add YES=1." 2
  say "This makes stack $STACK in account $ACCOUNT, region $REGION${ENDPOINT:+, endpoint $ENDPOINT}: ${N:-2} workers, a load balancer,"
  say "an Elastic IP, two buckets, a function; breaks and mends it for about $(minutes) minutes, and removes it in the end."
  case $CALLER in
    *:root) say "The deployer is a user that is made for this run, because root cannot assume a role; its access key is removed in the end." ;;
    *) say "The deployer is a role that is made for this run and removed in the end." ;;
  esac
  say "Cost: about five instances and an address for an hour and a half, 0.10 US dollars; less than 1 with all else."
  read -r -p "Type the stack's name to go on: " answer
  [ "$answer" = "$STACK" ] || die "nothing was made" "Type $STACK to go on." 2
fi
# `ask` ends here: what can be refused is refused before anything is built.
if [ "${1:-}" = ask ]; then exit; fi
mkdir -p "$DIR"
touch "$DIR/ours" "$LOG" "$RESULTS"

verdict() { grep "^$1|" "$RESULTS" | tail -n 1 | cut -d'|' -f2; }
run() { # name|what|minutes
  local name what minutes since=$SECONDS measured rc=0 said
  IFS='|' read -r name what minutes <<< "$1"
  if [ -n "$ONLY" ] && ! [[ ",$ONLY," == *",$name,"* ]]; then return; fi
  if [ "$(verdict "$name")" = passed ]; then
    say "$what: passed before"
    return
  fi
  echo "== $name $(date -u +%FT%TZ)" >> "$LOG"
  case $minutes in
    0) say "next: $what (seconds)" ;;
    *) say "next: $what (about $minutes min)" ;;
  esac
  if [ -e "$DIR/workers" ]; then N=$(workers); fi
  export N
  measured=$("$BASH" "$0" check "$name" 2>> "$LOG") || rc=$?
  case $rc in
    0) said=passed ;;
    "$NOT_HERE") said='not here' ;;
    *) said=FAILED ;;
  esac
  measured=$(echo "${measured:-the log says why}" | tr '|\n' '/ ' | sed 's/ *$//' | cut -c1-400)
  echo "$name|$said|$measured|$((SECONDS - since))" >> "$RESULTS"
  say "$said: $what ($measured)"
}

report() {
  {
    echo "# Acceptance of $STACK"
    echo
    echo "$(date -u +%FT%TZ), account $ACCOUNT, region $REGION, ${ENDPOINT:+endpoint $ENDPOINT, }${N:-no} workers${ARCH:+, $ARCH}," \
      "$("$BOOTSTRAP" --version)."
    echo
    echo "| check | | measured | took |"
    echo "|---|---|---|---|"
    while IFS='|' read -r name what _; do
      line=$(grep "^$name|" "$RESULTS" | tail -n 1 || true)
      [ -z "$line" ] || echo "| $what (\`$name\`) | $(echo "$line" | cut -d'|' -f2) | $(echo "$line" | cut -d'|' -f3) | $(echo "$line" | cut -d'|' -f4) s |"
    done <<< "$CHECKS
$LAST"
  } > "$REPORT"
}

still_there() {
  report
  say
  say "Stack $STACK is still there and costs money. This command goes on where it stopped;"
  say "\`make destroy STACK=$STACK REGION=$REGION${ENDPOINT:+ ENDPOINT=$ENDPOINT}\` removes it. So far: $REPORT"
}
trap 'still_there; exit 130' INT TERM

while read -r line; do
  run "$line" < /dev/null
  case ${line%%|*} in
    # Without one of these the others say nothing.
    quota | deploy) [ -n "$ONLY" ] || [ "$(verdict "${line%%|*}")" = passed ] || break ;;
    deployer) [ -n "$ONLY" ] || [ "$(verdict deployer)" != FAILED ] || break ;;
  esac
done <<< "$CHECKS"

answer=y
if [ -n "$KEEP" ]; then
  answer=n
elif [ -z "$YES" ]; then
  read -r -p "Remove stack $STACK now? [Y/n] " answer
fi
case $answer in
  n* | N*) still_there ;;
  *) ONLY='' && while read -r line; do run "$line" < /dev/null; done <<< "$LAST" ;;
esac
report
cat "$REPORT"
! grep -q '| FAILED |' "$REPORT"
