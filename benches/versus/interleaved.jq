# What interleaved mode costs those who do not use it: processor time of a response with the mode,
# over that without it, in the windows of the same round.

def median: sort | if length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def whole: round | tostring;
def pad($width): . + " " * ($width - length);
# In percent, with the interval that holds the median of all such rounds in 95 of 100 runs: between
# two ranks that follow from the number of rounds alone (binomial distribution, normal above 5).
def percent: (. - 1) * 1000 | round / 10;
def interval:
    sort | length as $n | ([0, ($n / 2 - 0.98 * ($n | sqrt) | floor)] | max) as $low
    | "\(median | percent) % (95 %: \(.[$low] | percent) to \(.[$n - 1 - $low] | percent))";

map(select(.round > 0)) as $windows
| def of($ask; $arm):
    $windows | map(select(.ask == $ask and .arm == $arm)) | sort_by(.round) | map(.cpu_ns);
  def cost($ask; $arm): [of($ask; $arm), of($ask; "third")] | transpose | map(.[0] / .[1]);
  def table:
    ["ask", "CPU ns/response: without", "with", "with, again", "the mode costs", "and again"],
    (("ntp", "nts") as $ask
     | [$ask, (("third", "timeball", "null") as $arm | of($ask; $arm) | median | whole),
        (("timeball", "null") as $arm | cost($ask; $arm) | interval)]);
  ([table] | transpose
    | map((map(length) | max) as $width | map(pad($width))) | transpose | .[] | join("  ")),
  "",
  "replies authenticated: \($windows | map(.sampled - .wrong) | add), wrong: \(
    $windows | map(.wrong) | add)"
