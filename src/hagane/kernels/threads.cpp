// Where the OpenMP threads of the calling thread may run: its own pool, which torch's operators and our kernels share.

#include <omp.h>
#include <sched.h>

// `each`: thread i only on processor i of the list; otherwise every thread on all of them.
extern "C" void place_threads(int count, const int* processors, int each) {
#pragma omp parallel num_threads(count)
  {
    const int thread = omp_get_thread_num();
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < count; i++)
      if (!each || i == thread) CPU_SET(processors[i], &set);
    sched_setaffinity(0, sizeof set, &set);
  }
}
