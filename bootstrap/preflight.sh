#!/bin/sh
# Says whether the AWS SDK will find credentials and a region, before anything is compiled: the first
# build takes minutes. Nothing is asked of AWS, and no secret is printed or kept.
#
#   bootstrap/preflight.sh [REGION]
#
# Ends with 0, with 4 without credentials, with 2 without a region. The sources are those of the SDK
# (AWS SDKs and Tools Reference Guide, "Standardized credential providers"):
#
# | source | credentials | region |
# |---|---|---|
# | variables | AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY | AWS_REGION, AWS_DEFAULT_REGION |
# | the profile's section in both files | keys, role, SSO, `aws login`, process, web identity | region |
# | web identity | AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN | |
# | a container | AWS_CONTAINER_CREDENTIALS_*_URI | |
# | the role of this EC2 instance | IMDS, at most 1 s | IMDS |
#
# Plain POSIX sh without other programs, so that it runs everywhere; only IMDS needs curl.
set -u

readonly REGION=${1:-}
readonly PROFILE=${AWS_PROFILE:-default}
readonly CONFIG=${AWS_CONFIG_FILE:-${HOME:-}/.aws/config}
readonly CREDENTIALS=${AWS_SHARED_CREDENTIALS_FILE:-${HOME:-}/.aws/credentials}
readonly IMDS=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}

stop() { # code, what happened, what to do...
  code=$1
  printf 'error: %s\n' "$2" >&2
  shift 2
  printf '  %s\n' "$@" >&2
  exit "$code"
}

# Whether the profile's section of a file has one of these keys with a value.
has() { # file, header, key...
  [ -r "$1" ] || return 1
  wanted=$2 is_inside=
  file=$1
  shift 2
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%"${line##*[![:space:]]}"}
    case $line in
      "["*"]"*)
        header=${line#"["}
        header=${header%%"]"*}
        header=${header#"${header%%[![:space:]]*}"}
        header=${header%"${header##*[![:space:]]}"}
        is_inside=
        [ "$header" != "$wanted" ] || is_inside=1
        # `[profile default]` is another way to write `[default]`.
        if [ "$wanted" = default ] && [ "$header" = "profile default" ]; then is_inside=1; fi
        ;;
      *=?*)
        [ -n "$is_inside" ] || continue
        key=${line%%=*}
        key=${key%"${key##*[![:space:]]}"}
        for one in "$@"; do
          [ "$key" != "$one" ] || return 0
        done
        ;;
    esac
  done < "$file"
  return 1
}

# In `config` a section is called `profile NAME`, in `credentials` NAME.
in_profile() { # key...
  case $PROFILE in
    default) has "$CONFIG" default "$@" || has "$CREDENTIALS" default "$@" ;;
    *) has "$CONFIG" "profile $PROFILE" "$@" || has "$CREDENTIALS" "$PROFILE" "$@" ;;
  esac
}

# What IMDS says, if this is an EC2 instance.
imds() { # path
  case ${AWS_EC2_METADATA_DISABLED:-} in true | TRUE | True) return 1 ;; esac
  command -v curl > /dev/null 2>&1 || return 1
  token=$(curl -s -f -m 1 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$IMDS/latest/api/token" 2> /dev/null) || return 1
  # The token goes by standard input: command lines are visible to everybody on this machine.
  printf 'header = "X-aws-ec2-metadata-token: %s"\n' "$token" \
    | curl -s -f -m 1 -K - "$IMDS/latest/meta-data/$1" 2> /dev/null
}

has_credentials() {
  [ -n "${AWS_ACCESS_KEY_ID:-}" ] && [ -n "${AWS_SECRET_ACCESS_KEY:-}" ] && return
  in_profile aws_access_key_id role_arn credential_process login_session sso_session sso_start_url \
    web_identity_token_file && return
  [ -n "${AWS_WEB_IDENTITY_TOKEN_FILE:-}" ] && [ -n "${AWS_ROLE_ARN:-}" ] && return
  [ -n "${AWS_CONTAINER_CREDENTIALS_RELATIVE_URI:-}${AWS_CONTAINER_CREDENTIALS_FULL_URI:-}" ] && return
  # The answer is the name of the instance's role.
  [ -n "$(imds iam/security-credentials/)" ]
}

has_region() {
  [ -n "$REGION${AWS_REGION:-}${AWS_DEFAULT_REGION:-}" ] && return
  in_profile region && return
  [ -n "$(imds placement/region)" ]
}

if ! has_credentials; then
  if [ -n "${AWS_ACCESS_KEY_ID:-}" ]; then
    stop 4 "AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not; nothing was built" \
      "Set both, or neither and run \`aws configure\`."
  fi
  if [ -n "${AWS_PROFILE:-}" ]; then
    stop 4 "there are no AWS credentials in the profile \`$PROFILE\` (AWS_PROFILE); nothing was built" \
      "Run \`aws configure --profile $PROFILE\`, or set AWS_PROFILE to another one." \
      "Looked in: $CONFIG, $CREDENTIALS."
  fi
  stop 4 "there are no AWS credentials; nothing was built" \
    "Run \`aws configure\` or \`aws login\`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY." \
    "Without an account: \`make local N=3\` runs everything on this machine."
fi
if ! has_region; then
  stop 2 "no AWS region is set; nothing was built" \
    "Add REGION=…, for example REGION=eu-west-1, or run \`aws configure\`."
fi
