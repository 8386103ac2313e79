# What NTS clients noticed of each flood: a line for each flood and server. Each figure is the median
# of the rounds.

def median: sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def pad($width): . + " " * ($width - length);
def whole: if . == null then "-" else round | tostring end;
def hundredths: if . == null then "-" else . * 100 | round / 100 | tostring end;
def lost: 100 * (1 - .sampled_replies / .sampled_requests) | if . < 0 then 0 else . end;

map(select(.round > 0 and .ask == "nts")) as $windows
| map(select(.phase == "handshakes")) as $handshakes
| map(select(.phase == "search" and .ask == "nts")) as $searches
| {none: "none", past: "plain, past the server", ntp: "plain requests", junk: "junk of all sizes",
    nak: "NTS that gets NAKs", "nak-once": "as many as its capacity", ke: "handshakes, slow loris"} as $names
| def of($arm; $phase): $windows | map(select(.arm == $arm and .phase == $phase));
  def capacity($arm): $searches | map(select(.arm == $arm).answered) | max;
  def flood($arm; $phase):
    if $phase == "ke" then
      $handshakes | map(select(.arm == $arm).exchanges | .completed / .seconds) | median
    else of($arm; $phase) | map(.flooded // empty) | median end;
  def p99($arm; $phase): of($arm; $phase) | map(.latency_ns.p99 / 1000) | median;
  def row($arm; $phase):
    flood($arm; $phase) as $flood
    | [$names[$phase], (if $arm == "third" then $third else $arm end),
       (if $phase == "ke" then ($flood | whole) + "/s" else $flood | values / 1000 | whole end) // "-",
       (if $phase == "ke" or $flood == null then "-" else $flood / capacity($arm) | hundredths end),
       (of($arm; $phase) | map(.offered / 1000) | median | whole),
       (("median", "p95") as $rank
        | of($arm; $phase) | map(.latency_ns[$rank] / 1000) | median | whole),
       (p99($arm; $phase) | whole),
       (p99($arm; $phase) / p99($arm; "none") | hundredths),
       (p99($arm; $phase) / p99($arm; "past") | hundredths),
       (of($arm; $phase) | map(lost) | median | hundredths),
       (of($arm; $phase) | map(100 * (.server_waited_share + .core_steal_share)) | median
        | hundredths)];
  [["flood", "server", "1000/s", "x capacity", "NTS: 1000/s", "p50 us", "p95 us", "p99 us", "p99 x none",
    "x past", "lost %", "stood %"],
   (("none", "past", "ntp", "junk", "nak", "nak-once", "ke") as $phase
    | ($windows | map(.arm) | unique[]) as $arm | row($arm; $phase))]
| (transpose | map((map(length) | max) as $width | map(pad($width))) | transpose | .[] | join("  ")),
  "",
  "replies authenticated: \($windows | map(.sampled - .wrong) | add), wrong: \(
    $windows | map(.wrong) | add); handshakes: \(
    $handshakes | map({(.arm): .exchanges.errors}) | tostring)"
