# How late replies left by their transmit timestamps, in nanoseconds: one line for each kind of
# request, load and arm. Each figure is the median of the rounds (least to most).

def median: sort | if length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def spread: "\(median | round) (\(min) to \(max))";
def whole: median | round | tostring;
def pad($width): . + " " * ($width - length);

map(select(.round > 0)) as $windows
| def of($ask; $phase; $arm):
    $windows | map(select(.ask == $ask and .phase == $phase and .arm == $arm)) | sort_by(.round);
  def row($ask; $phase; $arm):
    of($ask; $phase; $arm) as $of
    | [$ask, $phase, (if $arm == "third" then $third else $arm end),
       ($of | map(.answered / 1000) | whole),
       ($of | map(100 * .server_share) | whole),
       (("mean", "deviation", "p1", "median", "p99") as $figure
        | $of | map(.lateness_ns[$figure]) | spread)];
  def table:
    ["ask", "load", "arm", "1000/s", "core %", "mean ns", "deviation", "p1", "median", "p99"],
    (("ntp", "nts") as $ask | ("idle", "half", "half, bursts") as $phase
     | ("chronyd", "timeball", "third") as $arm | row($ask; $phase; $arm));
  ([table] | transpose
    | map((map(length) | max) as $width | map(pad($width))) | transpose | .[] | join("  ")),
  "",
  (("ntp", "nts") as $ask | ("half", "half, bursts") as $phase
    | "\($ask), \($phase): mean of timeball, as a share of chronyd's in the same round: " +
      ([of($ask; $phase; "timeball"), of($ask; $phase; "chronyd")] | transpose
        | map((.[0].lateness_ns.mean / .[1].lateness_ns.mean | fabs) * 100 | round / 100)
        | "\(median) (\(min) to \(max))")),
  "replies authenticated: \($windows | map(.sampled - .wrong) | add), wrong: \(
    $windows | map(.wrong) | add)"
