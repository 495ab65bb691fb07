# Lines over a number: gnuplot is given the data, heading and over, the number's name, before this.
set terminal svg size 720,440 noenhanced font "sans-serif,11" background "#ffffff"
load "docs/benchmarks/style.gp"
set title heading.(unit eq "" ? "" : ", ".unit)
set xlabel over
set logscale xy
set xrange [*:*] noextend
set offsets graph .05, graph .05, graph .1, graph .1
set format x "%.0s%c"
set key outside right top Left reverse
set grid
set border 3
set tics nomirror
plot for [i=1:words(tools)] $data using 1:i + 1 with linespoints linewidth 2 pointtype 4 + i pointsize .8 linecolor rgb colour(word(tools, i)) title word(tools, i)
