#include "backup/ordered_workers.h"

#include <atomic>
#include <chrono>
#include <random>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace convoy {
namespace {

void dawdle(int piece) {
  std::mt19937 generator(static_cast<unsigned>(piece));
  std::this_thread::sleep_for(std::chrono::microseconds(generator() % 500));
}

TEST(OrderedWorkersTest, FinishesInOrderOneAtATimeAndHoldsNoMoreThanTheLimit) {
  constexpr int kPieces = 500;
  constexpr int kLimit = 7;
  std::atomic<int> added = 0, finished = 0, finishing = 0, most = 0;
  std::vector<int> order;
  OrderedWorkers<int> workers(
      4, kLimit,
      [&](int& piece, unsigned thread) {
        EXPECT_LT(thread, 4U);
        most = std::max(most.load(), added - finished);
        dawdle(piece);
        piece *= 2;
      },
      [&](int& piece) {
        EXPECT_EQ(++finishing, 1);
        order.push_back(piece);
        --finishing;
        ++finished;
      });
  for (int i = 0; i < kPieces; ++i) {
    workers.add(i);
    ++added;
  }
  workers.wait();
  ASSERT_EQ(order.size(), static_cast<std::size_t>(kPieces));
  for (int i = 0; i < kPieces; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], 2 * i);
  EXPECT_LE(most, kLimit);
}

TEST(OrderedWorkersTest, TellsTheFirstFailureOfWorkAndOfFinish) {
  for (const bool in_work : {true, false}) {
    std::atomic<int> finished = 0;
    const auto fail_at_10 = [](bool here, int piece) {
      if (here && piece == 10) throw std::runtime_error("ten");
    };
    OrderedWorkers<int> workers(
        3, 5,
        [&](int& piece, unsigned) {
          dawdle(piece);
          fail_at_10(in_work, piece);
        },
        [&](int& piece) {
          fail_at_10(!in_work, piece);
          ++finished;
        });
    const auto add_many = [&] {
      for (int i = 0; i < 1000; ++i) workers.add(i);
    };
    EXPECT_THROW(add_many(), std::runtime_error);
    EXPECT_THROW(workers.wait(), std::runtime_error);
    EXPECT_LE(finished, 10);
  }
}

TEST(OrderedWorkersTest, DropsWhatNobodyHasBegunWhenItIsStopped) {
  std::atomic<int> begun = 0;
  OrderedWorkers<int> workers(
      2, 100,
      [&](int&, unsigned) {
        ++begun;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      },
      [](int&) {});
  for (int i = 0; i < 100; ++i) workers.add(i);
  workers.stop();
  EXPECT_LT(begun, 100);
}

}  // namespace
}  // namespace convoy
